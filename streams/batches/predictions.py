"""The one transaction of a batch of served predictions: ledger, archive, pane, dead letters. No states, no counts."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from backends.database.repositories.ingestion import PREDICTIONS as PREDICTIONS_TABLE
from backends.database.repositories.ingestion import IngestionRepository
from schemas import codec
from schemas.errors import InvalidMessageError
from schemas.messages.predictions import PredictionServed
from schemas.topics import PREDICTIONS
from schemas.vocabulary import DeadLetterReason, ModelType
from streams.batches.batch import (
    BatchOutcome,
    LedgerBatch,
    advance_or_lose,
    archive,
    measure,
    pane_row,
)
from streams.batches.dead_letters import DeadLetterService
from streams.batches.intake import Accepted, FetchedRecord, Intake, take_in

if TYPE_CHECKING:
    from backends.database.unit_of_work import Database


class PredictionArchive:
    """Archives predictions exactly once, one batch of one partition at a time."""

    def __init__(self, database: Database, dead_letters: DeadLetterService, *, models: Collection[ModelType]) -> None:
        self._database = database
        self._models = models
        self._dead_letters = dead_letters

    def forget(self, partition: int) -> None:
        """Do nothing: there is no memory of a partition."""

    async def ingest(self, batch: LedgerBatch) -> BatchOutcome:
        """Commit ``batch`` and return what became of its records.

        Raises:
            LostCompareError: the ledger is at another offset; nothing was written.
            RetryLaterError: the database is away; whether the batch was committed is unknown.
        """
        started = time.perf_counter()
        intake = take_in_predictions(batch.records, models=self._models)
        async with self._database.transaction() as work:
            repository = IngestionRepository(work, batch.topic, batch.partition)
            await advance_or_lose(repository, batch)
            rows = [_row(batch, item) for item in intake.accepted]
            archived = await archive(repository, PREDICTIONS_TABLE, intake, rows=rows)
            outcome = BatchOutcome(
                archived=len(archived.new),
                duplicates=len(intake.accepted) - len(archived.new),
                dead_lettered=len(intake.dead),
            )
            await repository.save_pane(pane_row(batch, outcome, None))
            await self._dead_letters.keep(work, batch, intake)
        measure(batch, outcome, seconds=time.perf_counter() - started)
        return outcome


def take_in_predictions(records: Sequence[FetchedRecord], *, models: Collection[ModelType]) -> Intake[PredictionServed]:
    """Sort records into valid predictions and dead letters. A prediction of a model that is not installed is a dead letter."""

    def decode(raw: bytes) -> PredictionServed:
        message: PredictionServed = codec.decode(PREDICTIONS, raw)
        if message.model_type not in models:
            detail = f"model_type: there is no model {message.model_type!r}"
            raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, detail)
        return message

    return take_in(records, decode)


def _row(batch: LedgerBatch, item: Accepted[PredictionServed]) -> tuple[Any, ...]:
    served = item.message
    return (
        served.event_id, served.occurred_at, served.user_id, served.model_type, served.version, served.artifact_digest,
        served.kind, served.replica_id, served.action_set, served.action, served.propensity, (item.record.value or b"").decode(),
        batch.topic.generation, batch.partition, item.offset,
    )  # fmt: skip
