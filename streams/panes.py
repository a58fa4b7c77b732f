"""A pane: what one batch of one partition added to every data set. Immutable once written; panes merge. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from modelkit.statistics.aggregations import DATASETS_OF_EVENT_TYPE, FoldedEvent, aggregate_by_model, refused
from modelkit.statistics.sketches import MOST_SOURCES, OTHER_SOURCES, DatasetStatistics, merged
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import DeadLetterReason, ModelType

EMPTY_STATISTICS = DatasetStatistics()


class PaneStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Statistics by model, and the watermark of each source (seconds since 1970) after the pane."""

    datasets: dict[str, DatasetStatistics] = {}
    watermarks: dict[str, float] = {}

    def counts(self) -> dict[str, DatasetCounts]:
        """Return the counters alone, without sketches."""
        return {name: statistics.counts for name, statistics in self.datasets.items()}


_encoder = msgspec.msgpack.Encoder()
_pane_decoder = msgspec.msgpack.Decoder(PaneStatistics)
_dataset_decoder = msgspec.msgpack.Decoder(DatasetStatistics)


class Watermarks:
    """The newest event time of each source, so that a replay of last year is judged by its own clock."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    def age(self, source: str, occurred_at: float) -> float:
        """Return how far ``occurred_at`` lies behind the watermark of ``source``, after moving it on."""
        newest = self.seconds.get(source)
        if newest is not None and occurred_at <= newest:
            return newest - occurred_at
        name = source if newest is not None or len(self.seconds) < MOST_SOURCES else OTHER_SOURCES
        newest = max(self.seconds.get(name, occurred_at), occurred_at)
        self.seconds[name] = newest
        return newest - occurred_at


def close_pane(
    folded: Sequence[FoldedEvent],
    *,
    duplicate_types: Iterable[str],
    dead: Iterable[tuple[str | None, str]],
    watermarks: Mapping[str, float],
) -> PaneStatistics:
    """Return the pane of one batch.

    ``folded``: new events with consent, in the order of their offsets; ``duplicate_types``: the event type of each
    duplicate; ``dead``: claimed event type and reason of each dead letter.
    """
    by_type: dict[type[object], list[FoldedEvent]] = defaultdict(list)
    for item in folded:
        by_type[type(item.event)].append(item)
    datasets = aggregate_by_model(by_type)
    for model_type, blame in _blamed(duplicate_types, dead).items():
        datasets[model_type] = merged(datasets.get(model_type, EMPTY_STATISTICS), blame)
    return PaneStatistics(datasets=datasets, watermarks=dict(watermarks))


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
    """Return the statistics in ``raw``; empty ones for none."""
    return _dataset_decoder.decode(raw) if raw else EMPTY_STATISTICS


def _blamed(
    duplicate_types: Iterable[str], dead: Iterable[tuple[str | None, str]]
) -> dict[ModelType, DatasetStatistics]:
    duplicates: dict[ModelType, int] = defaultdict(int)
    invalid: dict[ModelType, list[str]] = defaultdict(list)
    for event_type in duplicate_types:
        for model_type in DATASETS_OF_EVENT_TYPE.get(event_type, ()):
            duplicates[model_type] += 1
    for claimed, reason in dead:
        for model_type in DATASETS_OF_EVENT_TYPE.get(claimed or "", ()):
            invalid[model_type].append(reason)
    blame = {
        model_type: refused(invalid=len(reasons), missing=reasons.count(DeadLetterReason.MISSING_FIELD))
        for model_type, reasons in invalid.items()
    }
    for model_type, number in duplicates.items():
        repeated = DatasetStatistics(counts=DatasetCounts(duplicates=number))
        blame[model_type] = merged(blame.get(model_type, EMPTY_STATISTICS), repeated)
    return blame
