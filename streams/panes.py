"""Panes: what one batch of one partition added to every data set. A pane is immutable, and panes merge. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from modelkit.statistics.dataset import EMPTY_STATISTICS, DataSets
from modelkit.statistics.events import FoldedEvent
from modelkit.statistics.sketches import MOST_SOURCES, OTHER_SOURCES, DatasetStatistics
from schemas.messages.progress import DatasetCounts


class PaneStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Statistics by model, and each source's watermark after the pane, in seconds since 1970."""

    datasets: dict[str, DatasetStatistics] = {}
    watermarks: dict[str, float] = {}

    def counts(self) -> dict[str, DatasetCounts]:
        """Return the counters alone, without sketches."""
        return {name: statistics.counts for name, statistics in self.datasets.items()}


_encoder = msgspec.msgpack.Encoder()
_pane_decoder = msgspec.msgpack.Decoder(PaneStatistics)
_dataset_decoder = msgspec.msgpack.Decoder(DatasetStatistics)


class Watermarks:
    """The newest event time of each source. A replay of last year is thus judged by its own clock."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    def age(self, source: str, occurred_at: float) -> float:
        """Advance the watermark of ``source`` and return how far ``occurred_at`` lies behind it."""
        newest = self.seconds.get(source)
        if newest is not None and occurred_at <= newest:
            return newest - occurred_at
        name = source if newest is not None or len(self.seconds) < MOST_SOURCES else OTHER_SOURCES
        newest = max(self.seconds.get(name, occurred_at), occurred_at)
        self.seconds[name] = newest
        return newest - occurred_at


def close_pane(
    data_sets: DataSets,
    folded: Sequence[FoldedEvent],
    *,
    duplicate_types: Iterable[str],
    dead: Iterable[tuple[str | None, str]],
    watermarks: Mapping[str, float],
) -> PaneStatistics:
    """Return the pane of one batch. Each model computes what the batch adds to its data set (:class:`DataSets`)."""
    added = data_sets.aggregate(folded, duplicate_types=duplicate_types, dead=dead)
    return PaneStatistics(datasets=added, watermarks=dict(watermarks))


def encode_pane(pane: PaneStatistics) -> bytes:
    """Return the pane as bytes."""
    return _encoder.encode(pane)


def decode_pane(raw: bytes) -> PaneStatistics:
    """Return the pane in ``raw``."""
    return _pane_decoder.decode(raw)


def encode_statistics(statistics: DatasetStatistics) -> bytes:
    """Return one data set's statistics as bytes."""
    return _encoder.encode(statistics)


def decode_statistics(raw: bytes | None) -> DatasetStatistics:
    """Return the statistics in ``raw``, or empty ones if there is none."""
    return _dataset_decoder.decode(raw) if raw else EMPTY_STATISTICS
