"""Our worker at work on a topic that is full: its rate, its panes, and what it takes of the processors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processors import Processors, used
from benchmarks.services import BenchmarkError, Services, connected
from benchmarks.topic import Loaded
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import Room

if TYPE_CHECKING:
    import asyncpg

LIVE, READY = "/health/live", "/health/ready"
RUN_SECONDS = 180.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Pane:
    """The offsets of one batch of the worker."""

    partition: int
    from_offset: int
    to_offset: int


@dataclass(frozen=True, slots=True)
class Drained:
    """A topic that was read to its end.

    Attributes:
        rate: records a second between the first and the last commit.
        records: those between the two.
        seconds: of processor time that each process used meanwhile.
        panes: the worker's batches, in the order of their commits.
    """

    rate: float
    records: int
    seconds: Mapping[str, float]
    panes: Sequence[Pane]


async def drain(services: Services, loaded: Loaded) -> Drained:
    """Let a worker read the topic into a fresh database.

    Raises:
        BenchmarkError: what the database holds afterwards is not every event once.
    """
    async with services.database() as url, connected(url) as connection:
        async with services.room(Room.STREAMS, database_url=url, ready_path=LIVE) as room:
            processors = services.processors.with_process("worker", room.pid)
            rate, records, seconds = await _watched(connection, processors, records=loaded.records)
        return Drained(rate, records, seconds, await _checked_panes(connection, loaded))


async def ledger_sum(connection: asyncpg.Connection) -> int:
    """Return how many records the ledger has passed, in all partitions."""
    found = await connection.fetchval(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM ledger WHERE topic = $1", BEHAVIORAL_EVENTS.name
    )
    return int(found)


async def _watched(
    connection: asyncpg.Connection, processors: Processors, *, records: int
) -> tuple[float, int, dict[str, float]]:
    first: tuple[float, int, dict[str, float]] | None = None
    async with asyncio.timeout(RUN_SECONDS):
        while True:
            reached = await ledger_sum(connection)
            now = time.perf_counter()
            if first is None and reached > 0:
                first = now, reached, processors.seconds()
            if first is not None and reached >= records:
                begun, before, seconds = first
                done = reached - before
                return done / (now - begun), done, used(seconds, processors.seconds())
            await asyncio.sleep(_LOOK_SECONDS)


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
