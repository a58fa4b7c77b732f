"""Measures how long counting pauses: after kill -9 of one of two workers, and at the restart of a worker with a long history.

The history is left by the first measurement of :mod:`benchmarks.memory`: events that are archived and still on the topic.
A restart reads only the events that arrived in the meantime. The time for a true backlog is printed too.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from benchmarks.flow import Flow, flowing
from benchmarks.ratios import Comparison, bounded
from benchmarks.services import BenchmarkError, RunningProcess, Services, connected, eventually, http_get
from benchmarks.worker import LIVE, READY, ledger_sum
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import Service
from streams.settings import StreamsSettings

if TYPE_CHECKING:
    import asyncpg

    from benchmarks.plan import Plan, Say

FAILOVER, RESTART = "failover_seconds", "restart_caught_up_seconds"
SECONDS = "s"
SESSION_TIMEOUT_SECONDS = float(StreamsSettings.model_fields["session_timeout_seconds"].default)
FAILOVER_BOUND = SESSION_TIMEOUT_SECONDS + 3.0
RESTART_BOUND = 5.0
FAILOVER_RATE = 400.0
RESTART_RATE = 200.0
# A worker that keeps up has everything in its ledger that the broker acknowledged this long ago.
KEEPING_UP_SECONDS = 0.25
_POLL_SECONDS = 0.02
# An open transaction of a dead worker commits or rolls back within this time.
_LAST_COMMIT_SECONDS = 0.3


class Facts(msgspec.Struct, frozen=True):
    """The partitions in a worker's readiness answer."""

    partitions: dict[str, dict[str, int]] = {}


class Readiness(msgspec.Struct, frozen=True):
    """The relevant part of the readiness answer."""

    ready: bool
    facts: Facts


async def measure_failover(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparison of the median with its bound."""
    times = []
    say(f"failover: two workers at {FAILOVER_RATE:,.0f} events/s, session timeout {SESSION_TIMEOUT_SECONDS:.0f} s")
    async with (
        services.beside() as own,
        own.database() as url,
        connected(url) as connection,
        flowing(own) as flow,
        flow.at_rate(FAILOVER_RATE),
        contextlib.AsyncExitStack() as stack,
    ):
        workers = [await stack.enter_async_context(_worker(own, url)) for _ in range(2)]
        for number in range(1, plan.rounds + 1):
            await eventually(lambda: _share(workers), what="two workers that share the partitions", seconds=90)
            times.append(await _until_taken_over(workers.pop(0), connection))
            say(f"failover, round {number} of {plan.rounds}: counting again after {times[-1]:.1f} s")
            workers.append(await stack.enter_async_context(_worker(own, url)))
    return [bounded(FAILOVER, statistics.median(times), bound=FAILOVER_BOUND, unit=SECONDS)]


async def measure_restart(services: Services, url: str, flow: Flow, *, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparison of the median with its bound. No worker may run, and all events of ``flow`` must be archived."""
    times = []
    async with connected(url) as connection:
        for number in range(1, plan.rounds + 1):
            async with flow.at_rate(RESTART_RATE):
                await asyncio.sleep(1.0)
                times.append(await _until_caught_up(services, url, flow, connection=connection))
            say(
                f"restart, round {number} of {plan.rounds}: caught up after {times[-1]:.1f} s"
                f" with {flow.acknowledged:,} events behind it"
            )
        await flow.send(plan.backlog_events)
        await flow.flush()
        seconds = await _until_caught_up(services, url, flow, connection=connection)
        say(
            f"restart with a backlog: {plan.backlog_events:,} unread events were archived {seconds:.1f} s after the start"
        )
    return [bounded(RESTART, statistics.median(times), bound=RESTART_BOUND, unit=SECONDS)]


@contextlib.asynccontextmanager
async def _worker(services: Services, url: str) -> AsyncIterator[RunningProcess]:
    async with services.process(Service.STREAMS, database_url=url, ready_path=LIVE) as running:
        yield running


async def _share(workers: list[RunningProcess]) -> bool:
    """Whether all workers are ready and each has its own partitions."""
    answers = [await _readiness(worker) for worker in workers]
    names = [name for answer in answers for name in _events_partitions(answer)]
    return all(answer.ready and _events_partitions(answer) for answer in answers) and len(names) == len(set(names))


async def _until_taken_over(victim: RunningProcess, connection: asyncpg.Connection) -> float:
    """Kill a worker; return the seconds until the ledger has moved in each of its partitions."""
    lost = [int(name.rpartition("/")[2]) for name in _events_partitions(await _readiness(victim))]
    killed = time.perf_counter()
    victim.process.kill()
    await asyncio.sleep(_LAST_COMMIT_SECONDS)
    before = await _ledger(connection)

    async def moved() -> bool:
        now = await _ledger(connection)
        return all(now[partition] > before[partition] for partition in lost)

    await eventually(moved, what="the ledger of a dead worker's partitions", seconds=90, every_seconds=_POLL_SECONDS)
    return time.perf_counter() - killed


async def _until_caught_up(services: Services, url: str, flow: Flow, *, connection: asyncpg.Connection) -> float:
    """Start a worker; return the seconds from its start until it keeps up with ``flow``, and stop it."""

    async def keeps_up() -> bool:
        wanted = flow.acknowledged
        await asyncio.sleep(KEEPING_UP_SECONDS)
        return await ledger_sum(connection) >= wanted

    started = time.perf_counter()
    async with _worker(services, url):
        await eventually(keeps_up, what="a restarted worker that keeps up", seconds=180, every_seconds=0.0)
        return time.perf_counter() - started


async def _ledger(connection: asyncpg.Connection) -> dict[int, int]:
    rows = await connection.fetch("SELECT partition, next_offset FROM ledger WHERE topic = $1", BEHAVIORAL_EVENTS.name)
    return {row["partition"]: row["next_offset"] for row in rows}


async def _readiness(worker: RunningProcess) -> Readiness:
    if worker.process.returncode is not None:
        raise BenchmarkError(f"a worker ended with status {worker.process.returncode}")
    return msgspec.json.decode(await http_get(f"{worker.url}{READY}"), type=Readiness)


def _events_partitions(answer: Readiness) -> list[str]:
    return [name for name in answer.facts.partitions if name.startswith(f"{BEHAVIORAL_EVENTS.name}/")]
