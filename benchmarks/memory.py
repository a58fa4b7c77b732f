"""Measures whether a worker's memory stays bounded: millions of events of users who come and go, with default settings.

During the first tenth of the events the state cache (``FINCOACH_STATE_CACHE_MIB``) fills; after that it is full and
evicts the least recently changed users. Nothing else may grow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import psutil

from benchmarks import recovery
from benchmarks.flow import Flow, flowing
from benchmarks.ratios import Comparison, bounded
from benchmarks.services import BenchmarkError, Services, connected, eventually
from benchmarks.worker import LIVE, ledger_sum
from schemas.vocabulary import Service

if TYPE_CHECKING:
    import asyncpg

    from benchmarks.plan import Plan, Say

GROWTH = "ingest_rss_growth_mib"
BOUND_MIB = 64.0
UNIT = "MiB"
# A user is gone after this many events of all users; about twenty of them are the user's own.
USER_LIFE = 400_000
FIRST_SHARE = 0.1
CHUNK = 10_000
# At most this many events wait: they are produced while the worker drains them.
LONGEST_BACKLOG = 60_000
_DRAIN_SECONDS = 900.0
_MIB = 1024 * 1024


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparisons of memory and restart in ``plan``; the restart uses the history of the memory run."""
    grows, restarts = plan.wants(GROWTH), plan.wants(recovery.RESTART)
    events = max(plan.growth_events * grows, plan.history_events * restarts)
    found: list[Comparison] = []
    async with services.beside() as own, own.database() as url, flowing(own, user_life=USER_LIFE) as flow:
        say(f"history: {events:,} events of users who come and go")
        growth = await _grow(own, url, flow, events=events, say=say)
        if grows:
            found.append(bounded(GROWTH, growth, bound=BOUND_MIB, unit=UNIT))
        if restarts:
            found += await recovery.measure_restart(own, url, flow, plan=plan, say=say)
    return found


async def _grow(services: Services, url: str, flow: Flow, *, events: int, say: Say) -> float:
    """Let a worker drain ``events`` while they are produced; return the growth in MiB after the first tenth, at its maximum."""
    async with (
        connected(url) as connection,
        services.process(Service.STREAMS, database_url=url, ready_path=LIVE) as running,
    ):
        worker = psutil.Process(running.pid)
        await _drained(flow, connection, events=int(events * FIRST_SHARE))
        first = _resident_mib(worker)
        say(f"history: {first:,.0f} MiB after {flow.sent:,} events")
        async with _watching(worker) as seen:
            await _drained(flow, connection, events=events)
        say(f"history: {_resident_mib(worker):,.0f} MiB after {flow.sent:,} events, {max(seen):,.0f} at most")
        archived, users = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM behavioral_events), (SELECT count(*) FROM user_states)"
        )
        if archived != events:
            raise BenchmarkError(f"of {events} events {archived} were archived")
        say(f"history: the archive holds them all, of {users:,} users")
        return max(seen) - first


async def _drained(flow: Flow, connection: asyncpg.Connection, *, events: int) -> None:
    """Send until ``events`` have been sent in total, and wait until they are archived."""

    async def near() -> bool:
        return flow.sent - await ledger_sum(connection) < LONGEST_BACKLOG

    async def done() -> bool:
        return await ledger_sum(connection) >= events

    while flow.sent < events:
        await eventually(near, what="the worker to take events", seconds=_DRAIN_SECONDS)
        await flow.send(min(CHUNK, events - flow.sent))
    await flow.flush()
    await eventually(done, what="all events to be archived", seconds=_DRAIN_SECONDS)


@contextlib.asynccontextmanager
async def _watching(process: psutil.Process) -> AsyncIterator[list[float]]:
    """Give a list to which the resident MiB of the process are added twice a second, and at the end."""
    seen: list[float] = []

    async def watch() -> None:
        while True:
            seen.append(_resident_mib(process))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    try:
        yield seen
        seen.append(_resident_mib(process))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _resident_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / _MIB
