"""The live view of each data set: running counts and quality, folded from closed panes. Pure.

It can be thrown away and rebuilt; no decision rests on it. Each fold is guarded by offsets, so that a pane that is
delivered twice changes nothing and one that is missing is noticed.
"""

from __future__ import annotations

import msgspec

from modelkit.statistics.sketches import merged_counts
from schemas.messages.progress import DatasetCounts, PaneClosed
from streams.quality.assessment import assess_counts


class LiveDataset(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of an open epoch, and up to which offset of each partition panes are in it."""

    epoch: int
    counts: DatasetCounts = DatasetCounts()
    through: dict[int, int] = {}

    @property
    def quality(self) -> float | None:
        """Return the quality that counters alone allow."""
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
    """Return the view after ``pane``: unchanged for one it holds already; None when one before it is missing."""
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
