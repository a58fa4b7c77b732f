"""Runs our worker on a full topic: its rate, its panes, and its processor time."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processors import Processors, used
from benchmarks.services import BenchmarkError, Services, connected
from benchmarks.topic import Loaded
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import Service

if TYPE_CHECKING:
    import asyncpg

LIVE, READY = "/health/live", "/health/ready"
RUN_SECONDS = 180.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Pane:
    """The offsets of one batch of the worker."""

    partition: int
    from_offset: int
    to_offset: int


@dataclass(frozen=True, slots=True)
class Drained:
    """The figures of a topic that was read to its end.

    Attributes:
        rate: records per second between the first and the last commit.
        records: number of records between the two.
        seconds: processor time of each process in that time.
        written_bytes: bytes of Postgres' write-ahead log in that time.
        panes: the worker's batches, in the order of their commits.
    """

    rate: float
    records: int
    seconds: Mapping[str, float]
    written_bytes: int
    panes: Sequence[Pane] = ()


async def drain(services: Services, loaded: Loaded) -> Drained:
    """Let a worker read the topic into a fresh database.

    Raises:
        BenchmarkError: the database does not hold every event exactly once.
    """
    async with services.database() as url, connected(url) as connection:
        async with services.process(Service.STREAMS, database_url=url, ready_path=LIVE) as worker:
            processors = services.processors.with_process("worker", worker.pid)
            drained = await _watched(connection, processors, records=loaded.records)
        return dataclasses.replace(drained, panes=await _checked_panes(connection, loaded))


async def ledger_sum(connection: asyncpg.Connection) -> int:
    """Return how many records the ledger has covered, in all partitions."""
    found = await connection.fetchval(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM ledger WHERE topic = $1", BEHAVIORAL_EVENTS.name
    )
    return int(found)


async def _watched(connection: asyncpg.Connection, processors: Processors, *, records: int) -> Drained:
    before = await _reached(connection, 1)
    begun, seconds, written = time.perf_counter(), processors.seconds(), await _written(connection)
    reached = await _reached(connection, records)
    return Drained(
        rate=(reached - before) / (time.perf_counter() - begun),
        records=reached - before,
        seconds=used(seconds, processors.seconds()),
        written_bytes=await _written(connection) - written,
    )


async def _reached(connection: asyncpg.Connection, records: int) -> int:
    """Return the number of records in the ledger as soon as it is at least ``records``."""
    async with asyncio.timeout(RUN_SECONDS):
        while True:
            reached = await ledger_sum(connection)
            if reached >= records:
                return reached
            await asyncio.sleep(_POLL_SECONDS)


async def _written(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


async def _checked_panes(connection: asyncpg.Connection, loaded: Loaded) -> list[Pane]:
    archived = await connection.fetchval("SELECT count(*) FROM behavioral_events")
    sums = await connection.fetchrow(
        "SELECT sum(archived) AS archived, sum(duplicates) AS duplicates FROM panes WHERE topic = $1",
        BEHAVIORAL_EVENTS.name,
    )
    repeated = loaded.records - loaded.events
    if archived != loaded.events or (sums["archived"], sums["duplicates"]) != (loaded.events, repeated):
        raise BenchmarkError(
            f"of {loaded.events} events {archived} were archived and {sums['archived']} counted,"
            f" of {repeated} repetitions {sums['duplicates']}"
        )
    rows = await connection.fetch(
        "SELECT partition, from_offset, to_offset FROM panes WHERE topic = $1 ORDER BY closed_at, partition, from_offset",
        BEHAVIORAL_EVENTS.name,
    )
    return [Pane(row["partition"], row["from_offset"], row["to_offset"]) for row in rows]
