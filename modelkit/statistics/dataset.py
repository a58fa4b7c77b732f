"""What belongs to a model's data set, and what a batch adds to every data set. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelkit.statistics.events import FoldedEvent, NewEvents
from modelkit.statistics.sketches import DatasetStatistics, merged
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import DeadLetterReason, ModelType

EMPTY_STATISTICS = DatasetStatistics()


@dataclass(frozen=True, kw_only=True)
class DatasetDefinition:
    """What one model counts.

    Attributes:
        event_types: wire names of the events that the model learns from. Their duplicates and dead letters count against
            the quality of its data set.
        aggregate: the new events of a batch to what they add to the data set; None where they add nothing. Pure. The
            statistics of two batches merge into those of both.
    """

    event_types: tuple[str, ...]
    aggregate: Callable[[NewEvents], DatasetStatistics | None]


class DataSets:
    """The data sets of all models: what one batch adds to each."""

    def __init__(self, definitions: Mapping[ModelType, DatasetDefinition]) -> None:
        self._aggregates = [(model_type, definition.aggregate) for model_type, definition in definitions.items()]
        self._models_of: dict[str, list[ModelType]] = defaultdict(list)
        for model_type, definition in definitions.items():
            for event_type in definition.event_types:
                self._models_of[event_type].append(model_type)

    def aggregate(
        self,
        folded: Sequence[FoldedEvent],
        *,
        duplicate_types: Iterable[str],
        dead: Iterable[tuple[str | None, str]],
    ) -> dict[str, DatasetStatistics]:
        """Return what one batch adds, by model; a model to which it adds nothing is left out.

        ``folded``: new events with consent, in the order of their offsets; ``duplicate_types``: the event type of each
        duplicate; ``dead``: claimed event type and reason of each dead letter.
        """
        events = NewEvents(folded)
        added = {
            model_type: statistics
            for model_type, aggregate in self._aggregates
            if (statistics := aggregate(events)) is not None
        }
        for model_type, counts in self._refused(duplicate_types, dead).items():
            refused = DatasetStatistics(counts=counts)
            added[model_type] = merged(added[model_type], refused) if model_type in added else refused
        return added

    def _refused(
        self, duplicate_types: Iterable[str], dead: Iterable[tuple[str | None, str]]
    ) -> dict[ModelType, DatasetCounts]:
        """Return the duplicates and dead letters of each data set's event types; a missing field is an expected one."""
        duplicates: dict[ModelType, int] = defaultdict(int)
        invalid: dict[ModelType, list[str]] = defaultdict(list)
        for event_type in duplicate_types:
            for model_type in self._models_of.get(event_type, ()):
                duplicates[model_type] += 1
        for claimed, reason in dead:
            for model_type in self._models_of.get(claimed or "", ()):
                invalid[model_type].append(reason)
        missing = {model: reasons.count(DeadLetterReason.MISSING_FIELD) for model, reasons in invalid.items()}
        return {
            model: DatasetCounts(
                duplicates=duplicates.get(model, 0),
                invalid=len(invalid.get(model, ())),
                missing=missing.get(model, 0),
                fields_expected=missing.get(model, 0),
            )
            for model in duplicates.keys() | invalid.keys()
        }
