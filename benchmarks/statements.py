"""The SQL of our ingestion, taken down while it runs and run again alone: no broker, no decoding, no folding.

Taken down are the calls of the repository that ``streams.batches.events`` uses, and the rows of the outbox, with all their
arguments. Run again they are the same transactions with the same rows.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from backends.database.repositories.ingestion import IngestionRepository, next_offsets
from backends.database.unit_of_work import Database, UnitOfWork
from schemas.topics import BEHAVIORAL_EVENTS
from streams.batches import events as ingestion
from streams.batches.batch import LedgerBatch
from streams.batches.dead_letter_limits import LimitPolicy
from streams.batches.dead_letters import DeadLetterService
from tests.four_models import data_sets_of_four

if TYPE_CHECKING:
    from backends.clock import Clock
    from schemas.topics import Topic

PUBLISH = "publish_raw"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the repository, or of the outbox (:data:`PUBLISH`)."""

    name: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(slots=True)
class Transaction:
    """The calls of one batch in their order."""

    partition: int
    records: int
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """What was taken down, and the seconds that each part took while it was."""

    transactions: list[Transaction] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def records(self) -> int:
        """Return the number of records in all batches."""
        return sum(transaction.records for transaction in self.transactions)

    @property
    def _calls(self) -> list[Call]:
        return self.transactions[-1].calls

    async def take(self, call: Call, method: Callable[..., Awaitable[Any]]) -> Any:  # noqa: ANN401 - what the method returns
        """Take ``call`` down and make it."""
        self._calls.append(call)
        started = time.perf_counter()
        try:
            return await method(*call.arguments, **call.keywords)
        finally:
            self.seconds[call.name] += time.perf_counter() - started


class _RecordedRepository:
    """The repository, with every call taken down."""

    def __init__(self, record: Record, work: UnitOfWork, *place: Any) -> None:  # noqa: ANN401 - topic and partition
        self._record = record
        self._repository = IngestionRepository(work, *place)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._repository, name)

        async def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - the method's own
            return await self._record.take(Call(name, arguments, keywords), method)

        return call


class _RecordedWork(UnitOfWork):
    """A unit of work whose outbox rows are taken down."""

    record: Record

    async def publish_raw(
        self, topic: Topic, key: bytes | None, payload: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Take the row down and add it."""
        await self.record.take(Call(PUBLISH, (topic, key, payload), {"headers": headers}), super().publish_raw)


class _RecordedDatabase(Database):
    """A database whose units of work are taken down; the time from the end of the work to its commit counts as commit."""

    record: Record

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Commit at the end of the block."""
        started = time.perf_counter()
        async with super().transaction() as work:
            recorded = _RecordedWork(work.connection, work.room)
            recorded.record = self.record
            self.record.seconds["begin"] += time.perf_counter() - started
            yield recorded
            started = time.perf_counter()
        self.record.seconds["commit"] += time.perf_counter() - started


async def take_down(
    database: Database, clock: Clock, batches: Sequence[LedgerBatch], *, state_cache_bytes: int
) -> Record:
    """Let our ingestion handle ``batches`` on a fresh database and return what it did there; the collector rests meanwhile.

    What is alive afterwards is frozen: it stays, and every later collection would walk it.
    """
    await _begin_ledger(database, {batch.partition for batch in batches})
    record = Record()
    recorded = _RecordedDatabase(database.engine, database.room)
    recorded.record = record
    letters = DeadLetterService(clock, LimitPolicy(), check=lambda: None)
    service = ingestion.EventIngestion(
        recorded, clock, letters, data_sets=data_sets_of_four(), state_cache_bytes=state_cache_bytes
    )
    repository = functools.partial(_RecordedRepository, record)
    with (
        mock.patch.object(ingestion, "IngestionRepository", repository),
        _timed(record, "take_in"),
        _timed(record, "fold_new"),
        _timed(record, "close_pane"),
        _timed(record, "states_to_save"),
        _timed(record, "pane_row"),
    ):
        gc.freeze()  # the records of all batches and what is taken down stay alive here, as nothing does in a worker
        gc.disable()
        started = time.perf_counter()
        for batch in batches:
            record.transactions.append(Transaction(batch.partition, len(batch.records)))
            await service.ingest(batch)
        record.seconds["whole"] = time.perf_counter() - started
        gc.freeze()
        gc.enable()
    return record


async def run_again(database: Database, record: Record) -> float:
    """Run what was taken down on a fresh database, one transaction after the other; return the seconds it took."""
    await _begin_ledger(database, {transaction.partition for transaction in record.transactions})
    started = time.perf_counter()
    for transaction in record.transactions:
        async with database.transaction() as work:
            repository = IngestionRepository(work, BEHAVIORAL_EVENTS, transaction.partition)
            for call in transaction.calls:
                method = getattr(work if call.name == PUBLISH else repository, call.name)
                await method(*call.arguments, **call.keywords)
    return time.perf_counter() - started


async def _begin_ledger(database: Database, partitions: set[int]) -> None:
    await next_offsets(database, BEHAVIORAL_EVENTS, sorted(partitions))


@contextlib.contextmanager
def _timed(record: Record, name: str) -> Iterator[None]:
    """Time the pure function ``name`` of the ingestion while the block runs."""
    function = getattr(ingestion, name)

    def timed(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - the function's own
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            record.seconds[name] += time.perf_counter() - started

    with mock.patch.object(ingestion, name, timed):
        yield
