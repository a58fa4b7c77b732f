"""A batch of a ledger topic, and the steps that the transactions of all ledger topics share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from backends.database.repositories.ingestion import Archived, ArchiveTable, IngestionRepository, PaneRow
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas.errors import FinCoachError
from schemas.vocabulary import DeadLetterReason
from streams.batches.intake import DeadLetter, FetchedRecord, Intake, TimedMessage
from streams.panes import PaneStatistics, encode_pane

if TYPE_CHECKING:
    from schemas.topics import Topic

log = get_logger("streams.batches.batch")
MessageT = TypeVar("MessageT", bound=TimedMessage)


class LostCompareError(FinCoachError):
    """Another worker has advanced the ledger; this batch must be dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerBatch:
    """Records of one partition, starting at the ledger's next offset."""

    topic: Topic
    partition: int
    from_offset: int
    records: Sequence[FetchedRecord]

    @property
    def to_offset(self) -> int:
        """Return the offset after the last record."""
        return self.records[-1].offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What became of the records of a batch; ``archived`` includes ``not_consented``."""

    archived: int
    duplicates: int
    dead_lettered: int
    not_consented: int = 0


async def advance_or_lose(repository: IngestionRepository, batch: LedgerBatch) -> None:
    """Advance the ledger past ``batch``; the first statement of its transaction.

    Raises:
        LostCompareError: the ledger is not at the beginning of the batch.
    """
    if not await repository.advance_ledger(batch.from_offset, batch.to_offset):
        raise LostCompareError(topic=batch.topic.name, partition=batch.partition, from_offset=batch.from_offset)


async def archive(
    repository: IngestionRepository,
    table: ArchiveTable,
    intake: Intake[MessageT],
    *,
    rows: Sequence[tuple[Any, ...]],
    suspects: Collection[int] = (),
) -> Archived:
    """Insert the new ones of ``rows``. A row that the database cannot hold becomes a dead letter.

    ``suspects``: the offsets of rows that are probably archived already.
    """
    archived = await repository.archive(table, rows, suspects=suspects)
    if archived.refused:
        _dead_letter_refused(intake, archived.refused)
    return archived


def _dead_letter_refused(intake: Intake[Any], refused: dict[int, str]) -> None:
    for item in intake.accepted:
        if item.offset in refused:
            intake.dead.append(DeadLetter(item.record, DeadLetterReason.INVALID_FIELD, refused[item.offset]))
    intake.accepted = [item for item in intake.accepted if item.offset not in refused]


def pane_row(batch: LedgerBatch, outcome: BatchOutcome, pane: PaneStatistics | None) -> PaneRow:
    """Return the row of the batch's pane; ``pane`` is None for topics that feed no data set."""
    return PaneRow(
        from_offset=batch.from_offset,
        to_offset=batch.to_offset,
        records=len(batch.records),
        archived=outcome.archived,
        duplicates=outcome.duplicates,
        dead_lettered=outcome.dead_lettered,
        not_consented=outcome.not_consented,
        counts=msgspec.json.encode(pane.counts() if pane else {}).decode(),
        sketches=encode_pane(pane) if pane else None,
    )


def measure(batch: LedgerBatch, outcome: BatchOutcome, *, seconds: float) -> None:
    """Report the outcome of a committed batch in metrics and one log line."""
    by_outcome = {
        "archived": outcome.archived - outcome.not_consented,
        "not_consented": outcome.not_consented,
        "duplicate": outcome.duplicates,
        "dead_lettered": outcome.dead_lettered,
    }
    for name, number in by_outcome.items():
        METRICS.streams_records.labels(topic=batch.topic.name, outcome=name).inc(number)
    METRICS.streams_batch_seconds.labels(topic=batch.topic.name).observe(seconds)
    log.info(
        "batch_committed", topic=batch.topic.name, partition=batch.partition, from_offset=batch.from_offset,
        to_offset=batch.to_offset, **by_outcome, milliseconds=round(seconds * 1000, 1),
    )  # fmt: skip


def record_time(record: FetchedRecord) -> dt.datetime:
    """Return the broker's append time of ``record``."""
    return dt.datetime.fromtimestamp(record.timestamp / 1000, dt.UTC)
