"""ContinuousLearningService: the plan's entry points of counting, from a batch of events to a named training set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from backends.database.repositories.datasets import Cursor, DatasetRepository, OpenDataset, PaneSlice, standings
from backends.database.repositories.reviews import ReviewRepository
from modelkit.statistics.dataset import EMPTY_STATISTICS
from modelkit.statistics.sketches import merged_counts
from schemas.errors import CommandRejectedError
from schemas.messages.control import ApproveDataset, CommandOutcome, QuarantineDataset, UpdateThresholds
from schemas.messages.progress import DatasetCounts
from schemas.topics import ALERTS, BEHAVIORAL_EVENTS
from schemas.vocabulary import ModelType
from streams.batches.batch import BatchOutcome, LedgerBatch
from streams.epochs.closing import accumulate, close_epoch, share_alert_ends
from streams.epochs.collecting import (
    EARLIER_EPOCHS,
    MOST_PANES,
    DatasetProgress,
    OpenEpoch,
    begin_next_epoch,
    collected_ranges,
    earlier_statistics,
    is_due,
    take_panes,
)
from streams.epochs.live_view import LiveDataset
from streams.epochs.reviews import (
    check_approval,
    checked_reason,
    quarantine_evaluation,
    quarantine_sentence,
    quarantined_ranges,
)
from streams.epochs.rule_changes import checked_changes, listed
from streams.panes import decode_statistics
from streams.quality.assessment import QualityAssessment, assess

if TYPE_CHECKING:
    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork
    from modelkit.statistics.sketches import DatasetStatistics
    from schemas.messages.training import ThresholdReached
    from streams.batches.events import EventIngestion
    from streams.batches.predictions import PredictionArchive
    from streams.epochs.thresholds import Evaluation


class ContinuousLearningService:
    """Collects data for each model, judges it, and decides when a model is trained.

    The entry points carry the plan's names. They run in this order:

    - :meth:`process_behavioral_events` writes a batch to the archive, the user states and a pane, in one transaction. Each
      model's own ``dataset.py`` computes what the pane adds to its data set (for the plan's four:
      ``aggregate_recommendation_feedback``, ``aggregate_user_segments``, ``aggregate_user_transactions`` and
      ``aggregate_goal_events``).
    - :meth:`check_training_readiness` evaluates one model for the dataset agent, in one transaction for each epoch. It locks
      the data set, and then calls:
    - :meth:`update_training_datasets`, which takes new panes into the open data set and checks the threshold after each;
    - :meth:`assess_data_quality`, which judges the data set in five dimensions;
    - :meth:`prepare_training_data`, which commits and announces the epoch with its offset ranges once the rule holds.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        events: EventIngestion,
        predictions: PredictionArchive,
        models: Collection[ModelType],
    ) -> None:
        self._models = models
        self._database = database
        self._clock = clock
        self._events = events
        self._predictions = predictions
        self._earlier: dict[ModelType, tuple[int, DatasetStatistics]] = {}

    async def process_behavioral_events(self, batch: LedgerBatch) -> BatchOutcome:
        """Archive, fold and count one batch of events, exactly once; see :class:`EventIngestion` for what is raised."""
        return await self._events.ingest(batch)

    async def archive_predictions(self, batch: LedgerBatch) -> BatchOutcome:
        """Archive one batch of served predictions, exactly once."""
        return await self._predictions.ingest(batch)

    async def due_models(self) -> list[ModelType]:
        """Return the models whose data sets are due for an evaluation, with one query and no lock."""
        async with self._database.reading() as connection:
            found = await standings(connection, BEHAVIORAL_EVENTS)
        return [standing.model_type for standing in found if standing.model_type in self._models and is_due(standing)]

    async def check_training_readiness(self, model_type: ModelType) -> Evaluation | None:
        """Take all new panes into the model's open data set and close every complete epoch in its own transaction.

        Returns the last evaluation, or None while another worker evaluates the same data set.

        Raises:
            PaneGapError: panes are missing; a person must investigate.
        """
        while True:
            async with self._database.transaction() as work:
                progress = await self._look(work, model_type, wait=False)
            if progress is None or progress.is_complete:
                return progress.evaluation if progress else None

    def update_training_datasets(
        self, epoch: OpenEpoch, cursors: dict[int, Cursor], panes: Sequence[PaneSlice], *, model_type: ModelType
    ) -> DatasetProgress:
        """Take panes into an open data set, up to and including the first after which its rule holds."""
        return take_panes(epoch, cursors, panes, model_type=model_type, judge=self.assess_data_quality)

    def assess_data_quality(self, statistics: DatasetStatistics) -> QualityAssessment | None:
        """Judge a data set in five dimensions."""
        return assess(statistics)

    async def prepare_training_data(
        self, work: UnitOfWork, repository: DatasetRepository, progress: DatasetProgress, *, model_type: ModelType
    ) -> ThresholdReached:
        """Fix the training set's name (model_type, epoch) and its contents, the offset ranges that a snapshot reads."""
        return await close_epoch(work, repository, progress, model_type=model_type, now=self._clock.now())

    async def update_thresholds(
        self, work: UnitOfWork, command: UpdateThresholds, model_type: ModelType
    ) -> CommandOutcome:
        """Execute the command and evaluate the data set again, in the command's transaction.

        Raises:
            CommandRejectedError: a value is out of range, or none is given.
        """
        repository = self._datasets(work, model_type)
        await repository.lock_open(wait=True)
        changes = checked_changes(command, (await repository.circumstances()).rule)
        await repository.change_rule(changes, by=command.issuer)
        progress = await self._look(work, model_type, wait=True)
        sentence = progress.evaluation.sentence if progress else "no open data set"
        return CommandOutcome(
            detail=f"{model_type}: {listed(changes)}; {sentence}", result={"model_type": model_type, **changes}
        )

    async def approve_dataset(self, work: UnitOfWork, command: ApproveDataset, model_type: ModelType) -> CommandOutcome:
        """Release the open data set that waits for its quality and evaluate it again, in the command's transaction.

        Raises:
            CommandRejectedError: it does not wait for its quality, or no reason is given.
        """
        reason, reviews = checked_reason(command.reason), ReviewRepository(work.connection, model_type)
        progress = await self._look(work, model_type, wait=True)
        dataset = await reviews.lock(progress.dataset.epoch if progress else None)
        if progress is None or dataset is None:
            raise CommandRejectedError(f"{model_type} has no open data set")
        check_approval(command, dataset, progress.evaluation, model_type=model_type)
        await reviews.approve(dataset.id, by=command.issuer, reason=reason)
        progress = await self._look(work, model_type, wait=True)
        sentence = progress.evaluation.sentence if progress else ""
        return CommandOutcome(
            detail=f"{model_type} epoch {dataset.epoch}: {sentence}",
            result={"model_type": model_type, "epoch": dataset.epoch},
        )

    async def quarantine_dataset(
        self, work: UnitOfWork, command: QuarantineDataset, model_type: ModelType
    ) -> CommandOutcome:
        """Keep a data set out of all further training. An open one is closed without a crossing, and the next one opens.

        The panes that it has taken are quarantined. Panes not yet taken belong to the next data set.

        Raises:
            CommandRejectedError: there is nothing to quarantine, it is quarantined already, or no reason is given.
        """
        reason, reviews = checked_reason(command.reason), ReviewRepository(work.connection, model_type)
        repository = self._datasets(work, model_type)
        opened, cursors = await repository.lock_open(wait=True), await repository.cursors()
        dataset = await reviews.lock(command.epoch)
        ranges = quarantined_ranges(command, dataset, collected_ranges(cursors), model_type=model_type)
        assert dataset is not None  # noqa: S101 - refused above
        evaluation = quarantine_evaluation(dataset, by=command.issuer, reason=reason)
        await repository.save_evaluation(epoch=dataset.epoch, evaluation=evaluation)
        await reviews.quarantine(dataset, ranges, evaluation, by=command.issuer, reason=reason)
        if dataset.is_open:
            await reviews.open_behind(dataset)
            begin_next_epoch(cursors)
            await repository.move_cursors(cursors)
            if opened is not None and opened.share_alert_at is not None:
                ended = share_alert_ends(model_type=model_type, by=command.issuer, now=self._clock.now())
                await work.publish(ALERTS, model_type, ended)
        trainings = await reviews.trainings_of(dataset.epoch)
        detail = quarantine_sentence(dataset, model_type=model_type, by=command.issuer, trainings=trainings)
        return CommandOutcome(
            detail=detail, result={"model_type": model_type, "epoch": dataset.epoch, "trainings": trainings}
        )

    async def live_dataset(self, model_type: ModelType) -> LiveDataset:
        """Return the counts of the model's open epoch from the database, including panes that are not yet taken."""
        async with self._database.reading() as connection:
            standing = await DatasetRepository(connection, model_type, BEHAVIORAL_EVENTS).standing()
        counts = decode_statistics(standing.accumulated).counts
        through = dict(standing.cursors)
        for pane in standing.panes:
            if pane.counts is not None:
                counts = merged_counts(counts, msgspec.convert(pane.counts, DatasetCounts))
            through[pane.partition] = pane.to_offset
        return LiveDataset(epoch=standing.epoch, counts=counts, through=through)

    async def _look(self, work: UnitOfWork, model_type: ModelType, *, wait: bool) -> DatasetProgress | None:
        repository = self._datasets(work, model_type)
        dataset = await repository.lock_open(wait=wait)
        if dataset is None:
            return None
        epoch = await self._open_epoch(repository, dataset, model_type)
        cursors = await repository.cursors()
        panes = await repository.panes_behind(most=MOST_PANES)
        progress = self.update_training_datasets(epoch, cursors, panes, model_type=model_type)
        if progress.evaluation.fired:
            await self.prepare_training_data(work, repository, progress, model_type=model_type)
        else:
            await accumulate(work, repository, progress, model_type=model_type, now=self._clock.now())
        return progress

    async def _open_epoch(
        self, repository: DatasetRepository, dataset: OpenDataset, model_type: ModelType
    ) -> OpenEpoch:
        row = await repository.circumstances()
        known = self._earlier.get(model_type)
        if row.rule.adaptive and (known is None or known[0] != dataset.epoch):
            earlier = await repository.earlier_statistics(before_epoch=dataset.epoch, most=EARLIER_EPOCHS)
            known = self._earlier[model_type] = dataset.epoch, earlier_statistics(earlier)
        return OpenEpoch.read(dataset, row, earlier=known[1] if known else EMPTY_STATISTICS)

    def _datasets(self, work: UnitOfWork, model_type: ModelType) -> DatasetRepository:
        return DatasetRepository(work.connection, model_type, BEHAVIORAL_EVENTS)
