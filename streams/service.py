"""ContinuousLearningService: the plan's entry points of counting, from a batch of events to a training set with a name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from backends.database.repositories.datasets import Cursor, DatasetRepository, OpenDataset, PaneSlice
from schemas.errors import CommandRejectedError
from schemas.messages.control import UpdateThresholds
from schemas.messages.progress import DatasetCounts
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import ModelType
from streams.batches import BatchOutcome, LedgerBatch
from streams.live_view import LiveDataset
from streams.panes import decode_statistics
from streams.quality import QualityAssessment, assess
from streams.readiness import MOST_PANES, DatasetProgress, accumulate, close_epoch, take_panes
from streams.sketches import merged_counts

if TYPE_CHECKING:
    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork
    from schemas.messages.training import ThresholdReached
    from streams.ingestion import EventIngestion
    from streams.predictions import PredictionArchive
    from streams.sketches import DatasetStatistics
    from streams.thresholds import Evaluation

LARGEST_THRESHOLD = 1_000_000_000
LONGEST_COOL_DOWN_SECONDS = 366 * 86_400


class ContinuousLearningService:
    """Monitors what accumulates for each model, judges it, and says when a model is to learn."""

    def __init__(
        self, database: Database, clock: Clock, *, events: EventIngestion, predictions: PredictionArchive
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._predictions = predictions

    async def process_behavioral_events(self, batch: LedgerBatch) -> BatchOutcome:
        """Archive, fold and count one batch of events, exactly once; see :class:`EventIngestion` for what is raised."""
        return await self._events.ingest(batch)

    async def archive_predictions(self, batch: LedgerBatch) -> BatchOutcome:
        """Archive one batch of served predictions, exactly once."""
        return await self._predictions.ingest(batch)

    async def check_training_readiness(self, model_type: ModelType) -> Evaluation | None:
        """Take all new panes into the model's open data set and close every epoch that is complete, each in a transaction of its own.

        Returns the last evaluation; None while another worker is looking at the same data set.

        Raises:
            PaneHoleError: panes are missing; a person must look.
        """
        while True:
            async with self._database.transaction() as work:
                progress = await self._look(work, model_type, wait=False)
            if progress is None or progress.is_complete:
                return progress.evaluation if progress else None

    def update_training_datasets(
        self, dataset: OpenDataset, cursors: dict[int, Cursor], panes: Sequence[PaneSlice], *, model_type: ModelType
    ) -> DatasetProgress:
        """Take panes into an open data set up to the first after which its rule holds."""
        return take_panes(dataset, cursors, panes, model_type=model_type, judge=self.assess_data_quality)

    def assess_data_quality(self, statistics: DatasetStatistics) -> QualityAssessment | None:
        """Judge a data set in five dimensions."""
        return assess(statistics)

    async def prepare_training_data(
        self, work: UnitOfWork, repository: DatasetRepository, progress: DatasetProgress, *, model_type: ModelType
    ) -> ThresholdReached:
        """Give the training set its name and its exact contents: (model_type, epoch) and the offset ranges that a snapshot reads."""
        return await close_epoch(work, repository, progress, model_type=model_type, now=self._clock.now())

    async def update_thresholds(
        self, work: UnitOfWork, command: UpdateThresholds, model_type: ModelType
    ) -> tuple[str, dict[str, Any]]:
        """Carry out the command and look at the data set again at once, all in the command's transaction.

        Raises:
            CommandRejectedError: when a value is out of its range, or none is given.
        """
        changes = checked_changes(command)
        repository = self._datasets(work, model_type)
        await repository.lock_open(wait=True)
        await repository.change_rule(changes, by=command.issuer)
        progress = await self._look(work, model_type, wait=True)
        listed = ", ".join(f"{name} {value:g}" for name, value in changes.items())
        sentence = progress.evaluation.sentence if progress else "no open data set"
        return f"{model_type}: {listed}; {sentence}", {"model_type": model_type, **changes}

    async def live_dataset(self, model_type: ModelType) -> LiveDataset:
        """Return the running counts of the model's open epoch from the database: what is accumulated and what waits behind it."""
        async with self._database.reading() as connection:
            standing = await DatasetRepository(connection, model_type, BEHAVIORAL_EVENTS).standing()
        counts = decode_statistics(standing.accumulated).counts
        through = dict(standing.cursors)
        for pane in standing.panes:
            if model_type in pane.counts:
                counts = merged_counts(counts, msgspec.convert(pane.counts[model_type], DatasetCounts))
            through[pane.partition] = pane.to_offset
        return LiveDataset(epoch=standing.epoch, counts=counts, through=through)

    async def _look(self, work: UnitOfWork, model_type: ModelType, *, wait: bool) -> DatasetProgress | None:
        repository = self._datasets(work, model_type)
        dataset = await repository.lock_open(wait=wait)
        if dataset is None:
            return None
        cursors = await repository.cursors()
        panes = await repository.panes_behind(most=MOST_PANES)
        progress = self.update_training_datasets(dataset, cursors, panes, model_type=model_type)
        if progress.evaluation.fired:
            await self.prepare_training_data(work, repository, progress, model_type=model_type)
        else:
            await accumulate(repository, progress, model_type=model_type)
        return progress

    def _datasets(self, work: UnitOfWork, model_type: ModelType) -> DatasetRepository:
        return DatasetRepository(work.connection, model_type, BEHAVIORAL_EVENTS)


def checked_changes(command: UpdateThresholds) -> dict[str, Any]:
    """Return the columns that the command changes.

    Raises:
        CommandRejectedError: with a sentence that says what would be right.
    """
    changes = {
        name: value
        for name in ("threshold", "quality_gate", "cool_down_seconds")
        if (value := getattr(command, name)) is not None
    }
    if not changes:
        raise CommandRejectedError("nothing to change; give a threshold, a quality_gate or cool_down_seconds")
    if not 1 <= changes.get("threshold", 1) <= LARGEST_THRESHOLD:
        raise CommandRejectedError(
            f"a threshold of {command.threshold} would never or always be reached; give a number from 1 to {LARGEST_THRESHOLD}"
        )
    gate = changes.get("quality_gate", 0.0)
    if not (math.isfinite(gate) and 0.0 <= gate <= 1.0):
        raise CommandRejectedError(f"a quality gate of {gate} is no ratio; give a number from 0 to 1")
    if not 0 <= changes.get("cool_down_seconds", 0) <= LONGEST_COOL_DOWN_SECONDS:
        raise CommandRejectedError(
            f"a cool-down of {command.cool_down_seconds} s is out of range; give 0 to {LONGEST_COOL_DOWN_SECONDS}"
        )
    return changes
