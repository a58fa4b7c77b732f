"""A one-minute outage at twice the usual rate: real processes, their memory, and what was stored afterwards.

All services run. Nothing is trained: the memory of a training is a separate question, bounded by its own setting.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import msgspec
import psutil

from backends.broker.kafka import create_topics
from backends.clock import SystemClock
from migrations.create_continuous_learning_tables import create as migrate
from schemas.topics import ALERTS, BEHAVIORAL_EVENTS
from schemas.vocabulary import Service
from stack.broker import EmbeddedBroker
from stack.postgres import EmbeddedPostgres
from stack.settings import child_environment
from tests.chaos.producers.steady_caller import Order, Report
from tests.integration.streams_workers import holes
from tests.processes import RunningService, eventually, running
from tests.services import WIDE_PARTITIONS, connect, running_in_background

if TYPE_CHECKING:
    from stack.processes import ProcessSpec

SERVICES = (Service.STREAMS, Service.TRAINERS, Service.DEPLOYER, Service.SERVING)
USUAL_RATE = 1_000.0
RATE = 2 * USUAL_RATE
OUTAGE_SECONDS = 60.0
# The caches are full for so few users when the outage begins; memory that grows later grows because of the outage.
USERS = 400
WARM_UP_SECONDS = 20.0
AFTERWARDS_SECONDS = 5.0
# Limits for waiting, not promises: a busy machine is slow to start and to warm up.
START_SECONDS, CATCH_UP_SECONDS = 240.0, 150.0
_MIB = 1024 * 1024


@dataclass(kw_only=True)
class Outcome:
    """What was measured in an outage.

    Attributes:
        report: from the calling host.
        archived: events in the archive.
        counted: events that the panes count as new.
        gaps: panes that do not begin where the previous one ended.
        growth_mib: by process, the peak memory afterwards minus the memory when the outage began.
        catch_up_seconds: from the end of the outage until the ledger held everything that the broker had acknowledged.
        announcements: how many outbox rows were written, and how many of them were published.
    """

    report: Report
    archived: int
    counted: int
    gaps: int
    growth_mib: dict[str, float]
    catch_up_seconds: float
    announcements: tuple[int, int] = (0, 0)


class Dependency:
    """A broker or database with its own folder; it can be stopped and started again at the same address."""

    def __init__(self, spec: ProcessSpec, folder: Path) -> None:
        self._spec = spec
        self._folder = folder
        self._stack = contextlib.ExitStack()

    async def start(self) -> None:
        """Return when it answers."""
        await asyncio.to_thread(self._stack.enter_context, running_in_background(self._spec, folder=self._folder))

    async def stop(self) -> None:
        """Return when it is gone; may be called twice."""
        await asyncio.to_thread(self._stack.close)


class Memory:
    """Samples the memory of processes twice a second and keeps the peak of each."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before = self._now()
        self._most = dict(self._before)

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self._most = {name: max(self._most[name], held) for name, held in self._now().items()}
            await asyncio.sleep(0.5)

    def growth_mib(self) -> dict[str, float]:
        """Return, by process, its peak minus its first sample."""
        return {name: (self._most[name] - before) / _MIB for name, before in self._before.items()}

    def _now(self) -> dict[str, int]:
        return {name: int(process.memory_info().rss) for name, process in self._processes.items()}


@dataclass(frozen=True, kw_only=True)
class OutageSetup:
    """The setting of an outage: the broker, the database, and their addresses."""

    folder: Path
    dependencies: dict[str, Dependency]
    database_url: str
    brokers: str


async def outage_of(gone: str) -> Outcome:
    """Run all services and a host, stop ``postgres`` or ``broker`` for a minute, and return what was measured."""
    with tempfile.TemporaryDirectory(prefix=f"fincoach-outage-{gone}-") as name:
        async with _outage_setup(Path(name)) as setup, _services(setup) as services, _calling(setup) as caller:
            await _until_ledger(setup, int(RATE * WARM_UP_SECONDS), seconds=START_SECONDS)
            memory = Memory({"client": caller.pid, **{service: one.process.pid for service, one in services.items()}})
            watching = asyncio.create_task(memory.watch())
            written = await _outage(setup, gone)
            ended_at = time.monotonic()
            await _pass(AFTERWARDS_SECONDS)
            report = await _report(setup, caller)
            await _until_ledger(setup, report.acknowledged, seconds=CATCH_UP_SECONDS)
            catch_up_seconds = time.monotonic() - ended_at
            published = await _published(setup, written)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for service, one in services.items():
                assert one.process.returncode is None, f"{service}: {one.log.read_text()[-3_000:]}"
            return await _outcome(
                setup, report, memory, catch_up_seconds=catch_up_seconds, announcements=(written, published)
            )


@contextlib.asynccontextmanager
async def _outage_setup(folder: Path) -> AsyncIterator[OutageSetup]:
    postgres, broker = EmbeddedPostgres(folder / "postgres"), EmbeddedBroker(folder / "broker")
    dependencies = {
        name: Dependency(spec, folder / f"{name}-run")
        for name, spec in (("postgres", postgres.spec()), ("broker", broker.spec()))
    }
    try:
        await asyncio.gather(*(dependency.start() for dependency in dependencies.values()))
        await migrate(postgres.url)
        await create_topics(broker.address, wide_partitions=WIDE_PARTITIONS)
        yield OutageSetup(folder=folder, dependencies=dependencies, database_url=postgres.url, brokers=broker.address)
    finally:
        await asyncio.gather(*(dependency.stop() for dependency in dependencies.values()))


@contextlib.asynccontextmanager
async def _services(setup: OutageSetup) -> AsyncIterator[dict[str, RunningService]]:
    settings = {"brokers": setup.brokers, "database_url": setup.database_url, "wide_partitions": WIDE_PARTITIONS}
    async with _connected(setup) as connection:
        await connection.execute(
            "UPDATE thresholds SET updated_by = 'test', threshold = 1000000000, adaptive = false, max_age_seconds = NULL"
        )
        await connection.execute("UPDATE training_datasets SET threshold = 1000000000")
    async with contextlib.AsyncExitStack() as stack:
        services = {
            str(service): await stack.enter_async_context(running(service, setup.folder, **settings))
            for service in SERVICES
        }
        for service in services.values():
            await service.ready()
        yield services


@contextlib.asynccontextmanager
async def _calling(setup: OutageSetup) -> AsyncIterator[asyncio.subprocess.Process]:
    order = Order(
        brokers=setup.brokers,
        folder=str(setup.folder),
        begins_at=SystemClock().now() - dt.timedelta(minutes=10),
        events_per_second=RATE,
        users=USERS,
    )
    with (setup.folder / "caller.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.producers.steady_caller", msgspec.json.encode(order).decode()),
            stdout=log,
            stderr=log,
            env=child_environment({}),
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _outage(setup: OutageSetup, gone: str) -> int:
    """Stop a broker or database for a minute; return how many announcements were written meanwhile."""
    dependency = setup.dependencies[gone]
    await dependency.stop()
    written = 0
    if gone == "broker":
        written = await _announce(setup, seconds=OUTAGE_SECONDS)
    else:
        await _pass(OUTAGE_SECONDS)
    await dependency.start()
    return written


async def _announce(setup: OutageSetup, *, seconds: float) -> int:
    """Write announcements at the rate of the events; the worker's relay publishes them."""
    written, started = 0, time.monotonic()
    async with _connected(setup) as connection:
        while time.monotonic() - started < seconds:
            due = int((time.monotonic() - started) * RATE) - written
            await connection.execute(
                "INSERT INTO outbox (service, topic, key, payload) SELECT $1, $2, 'steady'::bytea, convert_to(repeat('x', 300), 'UTF8')"
                " FROM generate_series(1, $3::int)",
                *(str(Service.STREAMS), ALERTS.name, due),
            )
            written += due
            await asyncio.sleep(0.1)
    return written


async def _published(setup: OutageSetup, written: int) -> int:
    """Wait until all announcements are published; return their number."""
    async with _connected(setup) as connection:
        query = "SELECT count(*) FROM outbox WHERE topic = $1 AND published_at IS NOT NULL"

        async def all_published() -> bool:
            return int(await connection.fetchval(query, ALERTS.name)) >= written

        await eventually(all_published, what="the announcements of the outage", seconds=CATCH_UP_SECONDS)
        return int(await connection.fetchval(query, ALERTS.name))


async def _report(setup: OutageSetup, caller: asyncio.subprocess.Process) -> Report:
    caller.send_signal(signal.SIGTERM)
    async with asyncio.timeout(CATCH_UP_SECONDS):
        status = await caller.wait()
    assert status == 0, (setup.folder / "caller.log").read_text()[-3_000:]
    return msgspec.json.decode((setup.folder / "report.json").read_bytes(), type=Report)


async def _until_ledger(setup: OutageSetup, records: int, *, seconds: float) -> None:
    async with _connected(setup) as connection:

        async def there() -> bool:
            query = "SELECT coalesce(sum(next_offset), 0) FROM ledger WHERE topic = $1"
            return int(await connection.fetchval(query, BEHAVIORAL_EVENTS.name)) >= records

        await eventually(there, what=f"{records} records in the ledger", seconds=seconds)


async def _outcome(
    setup: OutageSetup, report: Report, memory: Memory, *, catch_up_seconds: float, announcements: tuple[int, int]
) -> Outcome:
    async with _connected(setup) as connection:
        archived, counted = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM behavioral_events), (SELECT sum(archived) FROM panes WHERE topic = $1)",
            BEHAVIORAL_EVENTS.name,
        )
        return Outcome(
            report=report,
            archived=archived,
            counted=counted,
            gaps=await holes(connection),
            growth_mib=memory.growth_mib(),
            catch_up_seconds=catch_up_seconds,
            announcements=announcements,
        )


@contextlib.asynccontextmanager
async def _connected(setup: OutageSetup) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(setup.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def _pass(seconds: float) -> None:
    """Let time pass: the outage is defined by its duration alone."""
    await asyncio.sleep(seconds)
