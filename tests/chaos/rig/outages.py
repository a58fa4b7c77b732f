"""One outage of a minute under twice the usual rate: real processes, what they hold in memory, and what is there afterwards.

All rooms run. Nothing is trained: how much a training holds is another question, and is bounded by a setting of its own.
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
from schemas.vocabulary import Room
from stack.broker import EmbeddedBroker
from stack.postgres import EmbeddedPostgres
from stack.settings import child_environment
from tests.chaos.producers.steady_caller import Order, Report
from tests.integration.streams_workers import holes
from tests.rooms import RunningRoom, eventually, running
from tests.services import WIDE_PARTITIONS, connect, running_in_background

if TYPE_CHECKING:
    from stack.processes import ProcessSpec

ROOMS = (Room.STREAMS, Room.TRAINERS, Room.DEPLOYER, Room.SERVING)
USUAL_RATE = 1_000.0
RATE = 2 * USUAL_RATE
OUTAGE_SECONDS = 60.0
# The caches of so few users are full when the outage begins; what grows then grows for want of the service.
USERS = 400
WARM_UP_SECONDS = 20.0
AFTERWARDS_SECONDS = 5.0
# Bounds of waiting, not promises: a busy machine takes its time to start and to warm up.
START_SECONDS, CATCH_UP_SECONDS = 240.0, 150.0
_MIB = 1024 * 1024


@dataclass(kw_only=True)
class Outcome:
    """What was seen of an outage.

    Attributes:
        report: of the host that called.
        archived: events in the archive.
        counted: events that the panes count as new.
        holes: panes that do not begin where the one before them ended.
        growth_mib: by process, the most that it held in memory afterwards beyond what it held when the outage began.
        catch_up_seconds: from the end of the outage until the ledger held everything the broker had acknowledged.
        announcements: rows of the outbox that were written, and those of them that were published.
    """

    report: Report
    archived: int
    counted: int
    holes: int
    growth_mib: dict[str, float]
    catch_up_seconds: float
    announcements: tuple[int, int] = (0, 0)


class Service:
    """A service in a folder of its own, which can be taken away and brought back at the same address."""

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
    """Looks twice a second at what processes hold in memory, and remembers the most of each."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before = self._now()
        self._most = dict(self._before)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self._most = {name: max(self._most[name], held) for name, held in self._now().items()}
            await asyncio.sleep(0.5)

    def growth_mib(self) -> dict[str, float]:
        """Return by process how much more it held at most than at the beginning."""
        return {name: (self._most[name] - before) / _MIB for name, before in self._before.items()}

    def _now(self) -> dict[str, int]:
        return {name: int(process.memory_info().rss) for name, process in self._processes.items()}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an outage happens: both services, the worker and the database connection that looks on."""

    folder: Path
    services: dict[str, Service]
    database_url: str
    brokers: str


async def outage_of(gone: str) -> Outcome:
    """Run a worker and a host, take ``postgres`` or ``broker`` away for a minute, and return what was seen."""
    with tempfile.TemporaryDirectory(prefix=f"fincoach-outage-{gone}-") as name:
        async with _place(Path(name)) as place, _rooms(place) as rooms, _calling(place) as caller:
            await _until_ledger(place, int(RATE * WARM_UP_SECONDS), seconds=START_SECONDS)
            memory = Memory({"client": caller.pid, **{room: one.process.pid for room, one in rooms.items()}})
            watching = asyncio.create_task(memory.watch())
            written = await _outage(place, gone)
            ended_at = time.monotonic()
            await _pass(AFTERWARDS_SECONDS)
            report = await _report(place, caller)
            await _until_ledger(place, report.acknowledged, seconds=CATCH_UP_SECONDS)
            catch_up_seconds = time.monotonic() - ended_at
            published = await _published(place, written)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for room, one in rooms.items():
                assert one.process.returncode is None, f"{room}: {one.log.read_text()[-3_000:]}"
            return await _outcome(
                place, report, memory, catch_up_seconds=catch_up_seconds, announcements=(written, published)
            )


@contextlib.asynccontextmanager
async def _place(folder: Path) -> AsyncIterator[Place]:
    postgres, broker = EmbeddedPostgres(folder / "postgres"), EmbeddedBroker(folder / "broker")
    services = {
        name: Service(spec, folder / f"{name}-run")
        for name, spec in (("postgres", postgres.spec()), ("broker", broker.spec()))
    }
    try:
        await asyncio.gather(*(service.start() for service in services.values()))
        await migrate(postgres.url)
        await create_topics(broker.address, wide_partitions=WIDE_PARTITIONS)
        yield Place(folder=folder, services=services, database_url=postgres.url, brokers=broker.address)
    finally:
        await asyncio.gather(*(service.stop() for service in services.values()))


@contextlib.asynccontextmanager
async def _rooms(place: Place) -> AsyncIterator[dict[str, RunningRoom]]:
    settings = {"brokers": place.brokers, "database_url": place.database_url, "wide_partitions": WIDE_PARTITIONS}
    async with _connected(place) as connection:
        await connection.execute(
            "UPDATE thresholds SET threshold = 1000000000, adaptive = false, max_age_seconds = NULL"
        )
        await connection.execute("UPDATE training_datasets SET threshold = 1000000000")
    async with contextlib.AsyncExitStack() as stack:
        rooms = {str(room): await stack.enter_async_context(running(room, place.folder, **settings)) for room in ROOMS}
        for room in rooms.values():
            await room.ready()
        yield rooms


@contextlib.asynccontextmanager
async def _calling(place: Place) -> AsyncIterator[asyncio.subprocess.Process]:
    order = Order(
        brokers=place.brokers,
        folder=str(place.folder),
        begins_at=SystemClock().now() - dt.timedelta(minutes=10),
        events_per_second=RATE,
        users=USERS,
    )
    with (place.folder / "caller.log").open("wb") as log:
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


async def _outage(place: Place, gone: str) -> int:
    """Take a service away for a minute; return how many announcements were written meanwhile."""
    service = place.services[gone]
    await service.stop()
    written = 0
    if gone == "broker":
        written = await _announce(place, seconds=OUTAGE_SECONDS)
    else:
        await _pass(OUTAGE_SECONDS)
    await service.start()
    return written


async def _announce(place: Place, *, seconds: float) -> int:
    """Write announcements at the same rate as the events, for the worker's relay to publish."""
    written, started = 0, time.monotonic()
    async with _connected(place) as connection:
        while time.monotonic() - started < seconds:
            due = int((time.monotonic() - started) * RATE) - written
            await connection.execute(
                "INSERT INTO outbox (room, topic, key, payload) SELECT $1, $2, 'steady'::bytea, convert_to(repeat('x', 300), 'UTF8')"
                " FROM generate_series(1, $3::int)",
                *(str(Room.STREAMS), ALERTS.name, due),
            )
            written += due
            await asyncio.sleep(0.1)
    return written


async def _published(place: Place, written: int) -> int:
    """Wait until no announcement waits; return how many are on their topic's side of the relay."""
    async with _connected(place) as connection:
        query = "SELECT count(*) FROM outbox WHERE topic = $1 AND published_at IS NOT NULL"

        async def all_published() -> bool:
            return int(await connection.fetchval(query, ALERTS.name)) >= written

        await eventually(all_published, what="the announcements of the outage", seconds=CATCH_UP_SECONDS)
        return int(await connection.fetchval(query, ALERTS.name))


async def _report(place: Place, caller: asyncio.subprocess.Process) -> Report:
    caller.send_signal(signal.SIGTERM)
    async with asyncio.timeout(CATCH_UP_SECONDS):
        status = await caller.wait()
    assert status == 0, (place.folder / "caller.log").read_text()[-3_000:]
    return msgspec.json.decode((place.folder / "report.json").read_bytes(), type=Report)


async def _until_ledger(place: Place, records: int, *, seconds: float) -> None:
    async with _connected(place) as connection:

        async def there() -> bool:
            query = "SELECT coalesce(sum(next_offset), 0) FROM ledger WHERE topic = $1"
            return int(await connection.fetchval(query, BEHAVIORAL_EVENTS.name)) >= records

        await eventually(there, what=f"{records} records in the ledger", seconds=seconds)


async def _outcome(
    place: Place, report: Report, memory: Memory, *, catch_up_seconds: float, announcements: tuple[int, int]
) -> Outcome:
    async with _connected(place) as connection:
        archived, counted = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM behavioral_events), (SELECT sum(archived) FROM panes WHERE topic = $1)",
            BEHAVIORAL_EVENTS.name,
        )
        return Outcome(
            report=report,
            archived=archived,
            counted=counted,
            holes=await holes(connection),
            growth_mib=memory.growth_mib(),
            catch_up_seconds=catch_up_seconds,
            announcements=announcements,
        )


@contextlib.asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(place.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def _pass(seconds: float) -> None:
    """Let time pass: an outage is nothing but its length."""
    await asyncio.sleep(seconds)
