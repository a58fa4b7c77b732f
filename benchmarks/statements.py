"""Records the SQL of our ingestion while it runs, and replays it alone: no broker, no decoding, no folding.

It records the calls of the repository that ``streams.batches.events`` uses, and the rows of the outbox, with all their
arguments. The replay runs the same transactions with the same rows.
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
class Recording:
    """The recorded transactions, and the seconds of each part during the recording."""

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
        """Record ``call`` and make it."""
        self._calls.append(call)
        started = time.perf_counter()
        try:
            return await method(*call.arguments, **call.keywords)
        finally:
            self.seconds[call.name] += time.perf_counter() - started


class _RecordedRepository:
    """The repository, with every call recorded."""

    def __init__(self, recording: Recording, work: UnitOfWork, *arguments: Any) -> None:  # noqa: ANN401 - topic and partition
        self._recording = recording
        self._repository = IngestionRepository(work, *arguments)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._repository, name)

        async def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - the method's own
            return await self._recording.take(Call(name, arguments, keywords), method)

        return call


class _RecordedWork(UnitOfWork):
    """A unit of work whose outbox rows are recorded."""

    recording: Recording

    async def publish_raw(
        self, topic: Topic, key: bytes | None, payload: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Record the row and add it."""
        await self.recording.take(Call(PUBLISH, (topic, key, payload), {"headers": headers}), super().publish_raw)


class _RecordedDatabase(Database):
    """A database whose units of work are recorded; the time from the end of the work to its commit counts as commit."""

    recording: Recording

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Commit at the end of the block."""
        started = time.perf_counter()
        async with super().transaction() as work:
            recorded = _RecordedWork(work.connection, work.service)
            recorded.recording = self.recording
            self.recording.seconds["begin"] += time.perf_counter() - started
            yield recorded
            started = time.perf_counter()
        self.recording.seconds["commit"] += time.perf_counter() - started


async def record_statements(
    database: Database, clock: Clock, batches: Sequence[LedgerBatch], *, state_cache_bytes: int
) -> Recording:
    """Let our ingestion handle ``batches`` on a fresh database and return its calls; garbage collection is off meanwhile.

    Objects that are alive afterwards are frozen: they stay, and every later collection would traverse them.
    """
    await _begin_ledger(database, {batch.partition for batch in batches})
    recording = Recording()
    recorded = _RecordedDatabase(database.engine, database.service)
    recorded.recording = recording
    dead_letters = DeadLetterService(clock, LimitPolicy(), check=lambda: None)
    service = ingestion.EventIngestion(
        recorded, clock, dead_letters, data_sets=data_sets_of_four(), state_cache_bytes=state_cache_bytes
    )
    repository = functools.partial(_RecordedRepository, recording)
    with (
        mock.patch.object(ingestion, "IngestionRepository", repository),
        _timed(recording, "take_in"),
        _timed(recording, "fold_new"),
        _timed(recording, "close_pane"),
        _timed(recording, "states_to_save"),
        _timed(recording, "pane_row"),
    ):
        gc.freeze()  # the records of all batches and the recording stay alive here, unlike in a worker
        gc.disable()
        started = time.perf_counter()
        for batch in batches:
            recording.transactions.append(Transaction(batch.partition, len(batch.records)))
            await service.ingest(batch)
        recording.seconds["whole"] = time.perf_counter() - started
        gc.freeze()
        gc.enable()
    return recording


async def replay_statements(database: Database, recording: Recording) -> float:
    """Replay a recording on a fresh database, one transaction after the other; return the seconds it took."""
    await _begin_ledger(database, {transaction.partition for transaction in recording.transactions})
    started = time.perf_counter()
    for transaction in recording.transactions:
        async with database.transaction() as work:
            repository = IngestionRepository(work, BEHAVIORAL_EVENTS, transaction.partition)
            for call in transaction.calls:
                method = getattr(work if call.name == PUBLISH else repository, call.name)
                await method(*call.arguments, **call.keywords)
    return time.perf_counter() - started


async def _begin_ledger(database: Database, partitions: set[int]) -> None:
    await next_offsets(database, BEHAVIORAL_EVENTS, sorted(partitions))


@contextlib.contextmanager
def _timed(recording: Recording, name: str) -> Iterator[None]:
    """Time the pure function ``name`` of the ingestion during the block."""
    function = getattr(ingestion, name)

    def timed(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - the function's own
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            recording.seconds[name] += time.perf_counter() - started

    with mock.patch.object(ingestion, name, timed):
        yield
