"""The one transaction of a batch of events: ledger, archive, user states, pane, dead letters, announcement.

Only rows that are new to the archive are folded and counted. All of it commits together with the compare-and-set of the
ledger, or not at all.

Events without consent are archived too, because the archive must recognise any event that is sent again. They stay out of
user states, counts, data sets and snapshots; panes record how many there are.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from backends.database.repositories.ingestion import EVENTS, IngestionRepository
from fincoach_events.events import EVENT_TYPES, AnyBehavioralEvent
from fincoach_events.identifiers import new_event_id
from modelkit.features import REDUCER_VERSION
from schemas import codec
from schemas.errors import InvalidMessageError
from schemas.messages.envelope import OffsetRange
from schemas.messages.progress import PaneClosed
from schemas.topics import DATASET_PROGRESS
from schemas.vocabulary import DeadLetterReason
from streams.batches.batch import (
    BatchOutcome,
    LedgerBatch,
    advance_or_lose,
    archive,
    measure,
    pane_row,
)
from streams.batches.dead_letters import DeadLetterService
from streams.batches.folding import (
    AcceptedEvent,
    FoldedBatch,
    PartitionMemory,
    ReducerFailedError,
    fold_new,
    load_states,
    states_to_save,
)
from streams.batches.intake import FetchedRecord, Intake, take_in
from streams.panes import PaneStatistics, Watermarks, close_pane, decode_pane

if TYPE_CHECKING:
    from backends.clock import Clock
    from backends.database.event_rows import EventRow
    from backends.database.repositories.ingestion import Archived
    from backends.database.unit_of_work import Database, UnitOfWork
    from modelkit.statistics.dataset import DataSets

LONGEST_SOURCE_CHARACTERS = 100  # of the archive's column
TYPE_NAMES: dict[type[object], str] = {kind: str(kind.__struct_config__.tag) for kind in EVENT_TYPES}


class EventIngestion:
    """Archives, folds and counts behavioural events, one batch of one partition at a time."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        dead_letters: DeadLetterService,
        *,
        data_sets: DataSets,
        state_cache_bytes: int,
    ) -> None:
        self._database = database
        self._data_sets = data_sets
        self._clock = clock
        self._dead_letters = dead_letters
        self._state_cache_bytes = state_cache_bytes
        self._memories: dict[int, PartitionMemory] = {}

    def forget(self, partition: int) -> None:
        """Drop the memory of ``partition``."""
        self._memories.pop(partition, None)

    async def ingest(self, batch: LedgerBatch) -> BatchOutcome:
        """Commit ``batch`` and return what became of its records.

        If the reducer fails on an event, the batch is tried again with a copy of each state before each step. The event
        then becomes a dead letter and is not archived.

        Raises:
            LostCompareError: the ledger is at another offset; nothing was written.
            RetryLaterError: the database is away; whether the batch was committed is unknown.
        """
        started = time.perf_counter()
        try:
            outcome = await self._attempt(batch, careful=False)
        except ReducerFailedError:
            outcome = await self._attempt(batch, careful=True)
        measure(batch, outcome, seconds=time.perf_counter() - started)
        return outcome

    async def _attempt(self, batch: LedgerBatch, *, careful: bool) -> BatchOutcome:
        intake = take_in_events(batch.records)
        memory = self._memory_for(batch)
        async with self._database.transaction() as work:
            writer = EventBatchWriter(work, batch, memory, dead_letters=self._dead_letters, data_sets=self._data_sets)
            outcome = await writer.write(intake, careful=careful, now=self._clock.now())
        if self._memories.get(batch.partition) is memory:  # else the partition was revoked in the meantime
            writer.remember()
            self._keep_within_bounds()
        return outcome

    def _memory_for(self, batch: LedgerBatch) -> PartitionMemory:
        memory = self._memories.get(batch.partition)
        if memory is None or memory.through != batch.from_offset:
            memory = self._memories[batch.partition] = PartitionMemory(through=batch.from_offset)
        return memory

    def _keep_within_bounds(self) -> None:
        share = self._state_cache_bytes // len(self._memories)
        for memory in self._memories.values():
            memory.states.shrink(share)


class EventBatchWriter:
    """Writes one batch of events in an open transaction; call :meth:`remember` after the commit."""

    def __init__(
        self,
        work: UnitOfWork,
        batch: LedgerBatch,
        memory: PartitionMemory,
        *,
        dead_letters: DeadLetterService,
        data_sets: DataSets,
    ) -> None:
        self._data_sets = data_sets
        self._work = work
        self._batch = batch
        self._memory = memory
        self._dead_letters = dead_letters
        self._watermarks = Watermarks()
        self._states: list[tuple[bytes, bytes]] = []
        self._event_ids: list[bytes] = []
        self._repository = IngestionRepository(work, batch.topic, batch.partition)

    async def write(self, intake: Intake[AnyBehavioralEvent], *, careful: bool, now: dt.datetime) -> BatchOutcome:
        """Do all work of the batch except the commit."""
        await advance_or_lose(self._repository, self._batch)
        self._watermarks = await self._last_watermarks()
        states = await load_states(self._repository, self._memory.states, intake.accepted)
        archived = await self._archive(intake)
        fresh = _new_of(intake.accepted, archived.new)
        folded = fold_new(fresh, states, watermarks=self._watermarks, careful=careful)
        await self._take_back(folded, intake, new=archived.new)
        outcome = BatchOutcome(
            archived=len(fresh) - len(folded.failed),
            duplicates=len(intake.accepted) - len(fresh),
            dead_lettered=len(intake.dead),
            not_consented=len(fresh) - len(folded.events) - len(folded.failed),
        )
        pane = self._pane(intake, folded, new=archived.new)
        saved = states_to_save(folded, states)
        self._states = list(zip(folded.touched, (state.state for state in saved), strict=True))
        await self._repository.save_states(saved, reducer_version=REDUCER_VERSION)
        await self._repository.save_pane(pane_row(self._batch, outcome, pane))
        await self._dead_letters.keep(self._work, self._batch, intake)
        await self._work.publish(DATASET_PROGRESS, str(self._batch.partition), self._message(outcome, pane, now=now))
        return outcome

    def remember(self) -> None:
        """Update the partition's memory to the ledger's new position; only after the commit."""
        self._memory.move_on(
            self._batch.to_offset, watermarks=self._watermarks, states=self._states, event_ids=self._event_ids
        )

    async def _archive(self, intake: Intake[AnyBehavioralEvent]) -> Archived:
        rows = [self._row(item) for item in intake.accepted]
        self._event_ids = [row[0] for row in rows]
        seen = self._memory.recent.seen(self._event_ids) if rows else []
        suspects = {intake.accepted[place].offset for place in seen}
        return await archive(self._repository, EVENTS, intake, rows=rows, suspects=suspects)

    async def _last_watermarks(self) -> Watermarks:
        if self._memory.watermarks is not None:
            return Watermarks(self._memory.watermarks.seconds)
        sketches = await self._repository.last_sketches()
        return Watermarks(decode_pane(sketches).watermarks if sketches else None)

    async def _take_back(self, folded: FoldedBatch, intake: Intake[AnyBehavioralEvent], *, new: set[int]) -> None:
        """Turn events on which the reducer failed, and their repeats in this batch, into dead letters."""
        if not folded.failed:
            return
        by_offset = {dead_letter.record.offset: dead_letter for dead_letter in folded.failed}
        await self._repository.remove(EVENTS, list(by_offset))
        failed = {_key(item): by_offset[item.offset] for item in intake.accepted if item.offset in by_offset}
        repeating = [item for item in intake.accepted if item.offset not in new and _key(item) in failed]
        intake.dead += [*by_offset.values(), *(failed[_key(item)]._replace(record=item.record) for item in repeating)]
        gone = {item.offset for item in repeating}
        intake.accepted = [item for item in intake.accepted if item.offset not in gone]

    def _pane(self, intake: Intake[AnyBehavioralEvent], folded: FoldedBatch, *, new: set[int]) -> PaneStatistics:
        return close_pane(
            self._data_sets,
            folded.events,
            duplicate_types=[TYPE_NAMES[type(item.message)] for item in intake.accepted if item.offset not in new],
            dead=[(dead_letter.event_type, dead_letter.reason) for dead_letter in intake.dead],
            watermarks=self._watermarks.seconds,
        )

    def _message(self, outcome: BatchOutcome, pane: PaneStatistics, *, now: dt.datetime) -> PaneClosed:
        batch = self._batch
        return PaneClosed(
            event_id=new_event_id(),
            occurred_at=now,
            range=OffsetRange(
                topic=batch.topic.name,
                generation=batch.topic.generation,
                partition=batch.partition,
                from_offset=batch.from_offset,
                to_offset=batch.to_offset,
            ),
            records=len(batch.records),
            archived=outcome.archived,
            duplicates=outcome.duplicates,
            dead_lettered=outcome.dead_lettered,
            not_consented=outcome.not_consented,
            datasets=pane.counts(),
        )

    def _row(self, item: AcceptedEvent) -> EventRow:
        event, batch = item.message, self._batch
        return (
            event.event_id.int.to_bytes(16, "big"), item.at, item.user, TYPE_NAMES[type(event)], event.interaction_type,
            event.consent, event.source, item.record.value or b"", batch.topic.generation, batch.partition, item.offset,
        )  # fmt: skip


def _key(item: AcceptedEvent) -> tuple[UUID, int]:
    return item.message.event_id, item.at


def _new_of(accepted: list[AcceptedEvent], new: set[int]) -> list[AcceptedEvent]:
    return accepted if len(new) == len(accepted) else [item for item in accepted if item.offset in new]


def take_in_events(records: Sequence[FetchedRecord]) -> Intake[AnyBehavioralEvent]:
    """Sort records into valid events and dead letters."""
    return take_in(records, decode_storable_event)


def decode_storable_event(raw: bytes) -> AnyBehavioralEvent:
    """Return the event in ``raw`` if the archive's columns can hold it.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    event = codec.decode_behavioral_event(raw)
    if len(event.source) > LONGEST_SOURCE_CHARACTERS:
        detail = f"source has more than {LONGEST_SOURCE_CHARACTERS} characters"
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, detail)
    return event
