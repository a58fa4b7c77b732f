"""The facts of the loop, gathered from a real database, a real broker, processes over HTTP and the supervisor's file."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from admin.installation import Endpoint, Installation
from admin.status.gathering import StatusService
from admin.status.loop import LoopFacts, first_broken, links
from backends.broker.kafka import create_topics
from backends.broker.positions import end_offsets
from backends.clock import ManualClock, SystemClock
from backends.database.unit_of_work import Database
from backends.telemetry.health import HealthServer
from schemas.tables import ledger, outbox
from schemas.topics import BEHAVIORAL_EVENTS, MODEL_READY, PREDICTIONS, THRESHOLD_REACHED
from schemas.vocabulary import Service
from stack.folder import StackState, write_state
from stack.ports import free_port
from stack.processes import Phase, ProcessState
from tests.integration.admin_rows import AT, LONG_AGO, Rows
from tests.integration.backends_topics import database_of, producing
from tests.services import WIDE_PARTITIONS

SERVICES = ("streams", "trainers", "deployer", "serving")
SINCE = dt.datetime(2026, 3, 4, 11, 0, tzinfo=dt.UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a way to the database."""
    async with database_of(Service.ADMIN, database_url) as database:
        yield database


@pytest.fixture
async def brokers(broker_address: str) -> str:
    """Return the broker, with the topics that the status looks at."""
    topics = (BEHAVIORAL_EVENTS, PREDICTIONS, THRESHOLD_REACHED, MODEL_READY)
    await create_topics(broker_address, wide_partitions=WIDE_PARTITIONS, topics=topics)
    return broker_address


@contextlib.asynccontextmanager
async def installation_of(brokers: str, **checks: dict[str, bool] | None) -> AsyncIterator[Installation]:
    """Give an installation with a process per service; its checks as given (None: nobody listens there)."""
    async with contextlib.AsyncExitStack() as stack:
        endpoints = []
        for service in SERVICES:
            port, its_checks = free_port(), checks.get(service, {"database": True})
            if its_checks is not None:
                server = HealthServer(host="127.0.0.1", port=port, readiness=lambda c=its_checks: c)  # type: ignore[misc]
                await server.start()
                stack.push_async_callback(server.stop)
            endpoints.append(Endpoint(name=f"{service}-1", service=service, url=f"http://127.0.0.1:{port}"))
        yield Installation(
            database_url="", brokers=brokers, store_url="", keys_folder="", wide_partitions=WIDE_PARTITIONS, processes=tuple(endpoints)
        )  # fmt: skip


async def facts_of(installation: Installation, database: Database, folder: Path) -> LoopFacts:
    """Return what a status finds."""
    return await StatusService(installation, database, SystemClock(), folder=folder).facts()


async def test_processes_are_known_by_what_they_and_their_supervisor_say(
    brokers: str, database: Database, tmp_path: Path
) -> None:
    """The state of a process comes from its own answers and from its supervisor."""
    states = [
        ProcessState(name="trainers-1", phase=Phase.BACKING_OFF, since=SINCE, log="/logs/t.log", restarts=3),
        ProcessState(name="streams-1", phase=Phase.READY, since=SINCE, log="/logs/s.log", pid=1, born_at=2.0),
    ]
    write_state(tmp_path, StackState(supervisor_pid=1, written_at=SINCE, processes=tuple(states)))
    async with installation_of(brokers, trainers=None, deployer={"database": True, "broker": False}) as installation:
        facts = await facts_of(installation, database, tmp_path)
    streams, trainers, deployer, serving = facts.processes
    assert (streams.live, streams.ready, streams.phase, streams.log) == (True, True, "ready", "/logs/s.log")
    assert (trainers.live, trainers.ready, trainers.phase, trainers.since) == (False, False, "backing_off", SINCE)
    assert (deployer.live, deployer.ready, deployer.phase) == (True, False, "away")  # nobody supervises it
    assert deployer.checks == {"database": True, "broker": False}
    assert (serving.ready, serving.since) == (True, None)
    broken = {link.name: link.detail for link in links(facts) if link.name in SERVICES and not link.holds}
    assert broken == {
        "trainers": "trainers-1 is backing_off, does not answer",
        "deployer": "deployer-1 is away, failing: broker",
    }


@pytest.mark.parametrize("text", ["", '{"processes": [{"name": 1}]}'])
async def test_a_supervisors_file_that_cannot_be_read_costs_nothing_else(
    brokers: str, database: Database, tmp_path: Path, text: str
) -> None:
    """The other facts are gathered even if the supervisor's file cannot be read."""
    (tmp_path / "state.json").write_text(text)
    async with installation_of(brokers) as installation:
        facts = await facts_of(installation, database, tmp_path)
    assert [process.ready for process in facts.processes] == [True] * 4
    assert facts.database_error is None
    assert facts.broker_error is None


async def test_a_reader_that_stands_while_records_wait_is_seen(
    brokers: str, database: Database, tmp_path: Path
) -> None:
    """A reader that does not move while records wait is found."""
    async with producing(brokers) as producer:
        await producer.publish(BEHAVIORAL_EVENTS.name, None, b"nobody will ever read this")
    ends = await end_offsets(brokers, [BEHAVIORAL_EVENTS], wide_partitions=WIDE_PARTITIONS)
    rows = Rows(database)
    for (topic, partition), end in ends.items():
        await rows.add(
            ledger,
            topic=topic,
            generation=1,
            partition=partition,
            next_offset=max(end - 1, 0),
            updated_at=SINCE,
        )
    async with installation_of(brokers) as installation:
        facts = await facts_of(installation, database, tmp_path)
        stalled = {(reader.topic, reader.partition) for reader in facts.readers if reader.stalled}
        assert stalled >= {place for place, end in ends.items() if end > 0}
        broken = first_broken(links(facts))
        assert broken is not None
        assert broken.name == "reading"
        async with database.transaction() as work:
            await work.connection.execute(ledger.update().values(next_offset=ledger.c.next_offset + 1))
        facts = await facts_of(installation, database, tmp_path)
    assert not [reader for reader in facts.readers if reader.stalled and reader.link == "streams"]


async def test_a_reader_that_never_read_is_seen_too(brokers: str, database: Database, tmp_path: Path) -> None:
    """A reader that has never committed a position is found while records wait."""
    async with installation_of(brokers) as installation:
        facts = await facts_of(installation, database, tmp_path)
    places = {(reader.link, reader.topic) for reader in facts.readers}
    assert {("trainers", THRESHOLD_REACHED.name), ("deployer", MODEL_READY.name)} <= places


async def test_what_the_database_says_is_wrong_is_found(brokers: str, database: Database, tmp_path: Path) -> None:
    """Waiting outbox rows, trainings that nobody works on, and replicas behind are found in the database."""
    rows = Rows(database)
    await rows.everything()
    await rows.add(outbox, service="deployer", topic="t", payload=b"", created_at=LONG_AGO)
    async with installation_of(brokers) as installation:
        facts = await facts_of(installation, database, tmp_path)
    chain = {link.name: link for link in links(facts)}
    assert chain["announcing"].detail == "1 outbox rows of deployer are not published"
    assert chain["announcing"].since == LONG_AGO
    assert chain["training"].detail == "the lease of a spending training has expired"
    assert [row.error for row in facts.failed_trainings] == ["no memory"]
    assert chain["swapping"].detail == "replica-1 serves goal 0.0.0, desired is 1.0.0"
    assert chain["swapping"].since == AT
    assert facts.now > AT


async def test_a_replica_that_serves_what_is_desired_is_not_behind(
    brokers: str, database: Database, tmp_path: Path
) -> None:
    """A replica that serves the desired version is not behind."""
    await Rows(database).deployment(sequence=2, served=2)
    async with installation_of(brokers) as installation:
        facts = await facts_of(installation, database, tmp_path)
    assert facts.replicas_behind == ()


async def test_with_everything_away_the_status_still_answers(tmp_path: Path, clock: ManualClock) -> None:
    """The status answers even if everything else is away."""
    url = f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none"
    async with (
        installation_of(f"127.0.0.1:{free_port()}", **dict.fromkeys(SERVICES)) as installation,
        database_of(Service.ADMIN, url) as database,
    ):
        facts = await StatusService(installation, database, clock, folder=tmp_path).facts()
    assert facts.database_error
    assert facts.broker_error
    assert facts.now == clock.now()
    assert not any(process.live for process in facts.processes)
    broken = first_broken(links(facts))
    assert broken is not None
    assert broken.name == "database"


@contextlib.asynccontextmanager
async def web_site() -> AsyncIterator[str]:
    """Give the address of a server that greets everybody."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_answers_but_is_no_process_of_ours_is_not_taken_for_one(
    brokers: str, database: Database, tmp_path: Path
) -> None:
    """Another program on a process's port is not taken for the process."""
    async with installation_of(brokers) as installation, web_site() as url:
        strange = msgspec.structs.replace(installation.processes[0], url=url)
        others = msgspec.structs.replace(installation, processes=(strange, *installation.processes[1:]))
        facts = await facts_of(others, database, tmp_path)
    assert [(process.live, process.ready) for process in facts.processes] == [(False, False), *[(True, True)] * 3]
