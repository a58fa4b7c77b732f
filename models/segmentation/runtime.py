"""The segmentation runtime: distances to the segments, the nearest one with its profile."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from modelkit.features import UserState
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.manifest import PARAMETERS, PROFILES, LoadedArtifact, Manifest
from modelkit.scoring import Scorer, ScoringRuntime, decoded_file
from models.segmentation.features import SEGMENTATION_FEATURES, segmentation_features
from schemas.errors import ArtifactRejectedError

IntArray = npt.NDArray[np.int64]

SEGMENT_NAMES = ("Conservative Savers", "Impulse Buyers", "Goal-Oriented", "Budget Conscious", "High Spenders")
"""The host's five segments; the index is the id there."""

_COLUMN = {name: index for index, name in enumerate(SEGMENTATION_FEATURES)}
_BANDS = 5
_QUINTILES = (0.2, 0.4, 0.6, 0.8)


class SegmentProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One segment; the order of the profiles is the order of the columns of the distances.

    Attributes:
        segment_id: stable, never used again for another segment.
        share: of users, 0..1.
        medians, spreads: per feature; the spread is the distance between the quartiles.
        telling: the features that set this segment apart, the most telling first.
    """

    segment_id: int
    name: str
    share: float
    medians: dict[str, float] = {}
    spreads: dict[str, float] = {}
    telling: list[str] = []


class RfmBands(msgspec.Struct, frozen=True, kw_only=True, tag_field="method", tag="rfm_bands"):
    """Quantile bands: each of recency, frequency and monetary mean scores 1..5 by four cut points; their sum falls into a band.

    The band is the column of the distances; recency scores high when it is small.
    """

    recency_cuts: list[float]
    frequency_cuts: list[float]
    monetary_cuts: list[float]
    sum_cuts: list[float]


def rfm_sums(rows: FloatArray, parameters: RfmBands) -> IntArray:
    """Return the sum of the three scores of rows of :data:`SEGMENTATION_FEATURES`, 3..15, shape (n,)."""
    recency = _BANDS - np.searchsorted(parameters.recency_cuts, rows[:, _COLUMN["recency_days"]], side="left")
    frequency = 1 + np.searchsorted(parameters.frequency_cuts, rows[:, _COLUMN["frequency"]], side="right")
    monetary = 1 + np.searchsorted(parameters.monetary_cuts, rows[:, _COLUMN["monetary_mean"]], side="right")
    return np.asarray(recency + frequency + monetary, dtype=np.int64)


def rfm_bands(rows: FloatArray, parameters: RfmBands) -> FloatArray:
    """Return the distance of rows of :data:`SEGMENTATION_FEATURES` to each band, shape (n, 5): 0 for the user's own."""
    band = np.searchsorted(parameters.sum_cuts, rfm_sums(rows, parameters), side="right")
    return np.asarray(np.abs(band[:, None] - np.arange(_BANDS)[None, :]), dtype=np.float32)


def quantile_bands(rows: FloatArray) -> RfmBands:
    """Return the bands whose cut points are the quintiles of ``rows`` and of their sums: the trivial baseline fitted on a training set."""
    names = ("recency_days", "frequency", "monetary_mean")
    cuts = [np.quantile(rows[:, _COLUMN[name]], _QUINTILES).tolist() for name in names]
    scored = RfmBands(recency_cuts=cuts[0], frequency_cuts=cuts[1], monetary_cuts=cuts[2], sum_cuts=[])
    return msgspec.structs.replace(scored, sum_cuts=np.quantile(rfm_sums(rows, scored), _QUINTILES).tolist())


_profiles = msgspec.json.Decoder(list[SegmentProfile])
_bands = msgspec.json.Decoder(RfmBands)


class SegmentationRuntime(ScoringRuntime):
    """Scores are distances, one column a segment; the answer is the nearest with its profile."""

    model_type = "segmentation"
    feature_names = SEGMENTATION_FEATURES

    def __init__(self, loaded: LoadedArtifact) -> None:
        super().__init__(loaded)
        self.profiles = decoded_file(loaded.files, PROFILES, _profiles)
        columns = len(self._golden.outputs[0])
        if len(self.profiles) != columns:
            raise ArtifactRejectedError(f"{len(self.profiles)} profiles for {columns} segments", file=PROFILES)

    @classmethod
    def baseline_scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return distances to the bands."""
        del manifest
        parameters = decoded_file(files, PARAMETERS, _bands)
        return lambda rows: rfm_bands(rows, parameters)

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return the lifetime aggregates."""
        return segmentation_features(state, request.as_of)

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return the nearest segment; the confidence is its share of all closenesses, 1 / (1 + distance)²."""
        del request
        distances = self.score_row(features)
        nearest = min(range(len(distances)), key=distances.__getitem__)
        closeness = [1.0 / (1.0 + max(distance, 0.0)) ** 2 for distance in distances]
        profile = self.profiles[nearest]
        row = dict(zip(SEGMENTATION_FEATURES, features.tolist(), strict=True))
        peers = _peers(profile, row)
        return Answer(
            body={
                "segment_id": profile.segment_id,
                "segment_name": profile.name,
                "confidence": round(closeness[nearest] / sum(closeness), 4),
                "characteristics": {name: round(profile.medians[name], 4) for name in _shown_features(profile, row)},
                "peer_comparison": {
                    "segment_share": round(profile.share, 4),
                    **{name: peer["spreads_away"] for name, peer in peers.items() if peer["spreads_away"] is not None},
                },
                "description": [
                    f"{name} typically {profile.medians[name]:g}" for name in _shown_features(profile, row)
                ],
                "compared_features": peers,
            }
        )


def _shown_features(profile: SegmentProfile, row: Mapping[str, float]) -> list[str]:
    return [name for name in profile.telling if name in row and name in profile.medians]


def _peers(profile: SegmentProfile, row: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    """Return how the user stands to the segment's median of each telling feature, in units of its spread."""
    return {
        name: {
            "value": round(row[name], 4),
            "segment_median": round(profile.medians[name], 4),
            "spreads_away": round((row[name] - profile.medians[name]) / max(profile.spreads.get(name, 0.0), 1e-9), 2)
            if profile.spreads.get(name)
            else None,
        }
        for name in _shown_features(profile, row)
    }
