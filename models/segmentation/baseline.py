"""Version 0: five bands of recency, frequency and monetary value, at published cut points."""

from __future__ import annotations

from modelkit.baselines import Baseline
from modelkit.manifest import PARAMETERS, PROFILES
from models.segmentation.runtime import SEGMENT_NAMES, RfmBands, SegmentProfile

# Chosen before any data were seen: days, numbers of purchases, and amounts.
BANDS = RfmBands(
    recency_cuts=[7.0, 30.0, 90.0, 180.0],
    frequency_cuts=[2.0, 5.0, 12.0, 50.0],
    monetary_cuts=[10.0, 25.0, 50.0, 100.0],
    sum_cuts=[4.5, 7.5, 10.5, 13.5],
)
# Bands from the least to the most active, under the host's names.
BAND_SEGMENTS = (0, 3, 2, 1, 4)

BASELINE = Baseline(
    files={
        PARAMETERS: BANDS,
        PROFILES: [
            SegmentProfile(segment_id=segment, name=SEGMENT_NAMES[segment], share=1.0 / len(SEGMENT_NAMES))
            for segment in BAND_SEGMENTS
        ],
    }
)
