"""The live view of each data set: running counts and quality, folded from closed panes. Pure.

It can be discarded and rebuilt, and no decision depends on it. Offsets guard each fold: a pane that is delivered twice
changes nothing, and a missing one is noticed.
"""

from __future__ import annotations

import msgspec

from modelkit.statistics.sketches import merged_counts
from schemas.messages.progress import DatasetCounts, PaneClosed
from streams.quality.assessment import assess_counts


class LiveDataset(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of an open epoch, and the offset of each partition up to which they reach."""

    epoch: int
    counts: DatasetCounts = DatasetCounts()
    through: dict[int, int] = {}

    @property
    def quality(self) -> float | None:
        """Return the quality that counters alone give."""
        return assess_counts(self.counts)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LiveDataset)


def encode_live(live: LiveDataset) -> bytes:
    """Return the view as JSON."""
    return _encoder.encode(live)


def decode_live(raw: bytes) -> LiveDataset:
    """Return the view in ``raw``."""
    return _decoder.decode(raw)


def fold_pane(live: LiveDataset, model_type: str, pane: PaneClosed) -> LiveDataset | None:
    """Return the view after ``pane``: unchanged if it holds the pane already, None if an earlier pane is missing."""
    span = pane.range
    through = live.through.get(span.partition, 0)
    if span.to_offset <= through:
        return live
    if span.from_offset != through:
        return None
    added = pane.datasets.get(model_type)
    return LiveDataset(
        epoch=live.epoch,
        counts=merged_counts(live.counts, added) if added else live.counts,
        through={**live.through, span.partition: span.to_offset},
    )
