"""The embedded Kafka and Postgres under the supervisor: killed, brought back, stopped, started again on their data."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stack.accounts import unprivileged_account
from stack.broker import MAX_MESSAGE_BYTES, EmbeddedBroker
from stack.broker_software import damaged_jars, fetch_jars
from stack.errors import FolderInUseError
from stack.postgres import EmbeddedPostgres
from stack.processes import Phase
from stack.supervisor import Supervisor
from tests.services import connect, unique

RETURN_SECONDS = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of Postgres can pass through."""
    with tempfile.TemporaryDirectory(prefix="fincoach-stack-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def restarted(supervisor: Supervisor, name: str, *, restarts: int) -> None:
    """Wait until a process has come back that often and is ready."""
    async with asyncio.timeout(RETURN_SECONDS):
        while True:
            state = supervisor.state(name)
            if state.restarts >= restarts and state.phase is Phase.READY:
                return
            await asyncio.sleep(0.02)


async def produce(address: str, topic: str, value: bytes, *, timestamp_ms: int | None = None) -> None:
    """Send one record and wait until it is acknowledged."""
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", max_request_size=MAX_MESSAGE_BYTES)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, timestamp_ms=timestamp_ms)
    finally:
        await producer.stop()


async def read(address: str, topic: str, count: int) -> list[tuple[bytes, int]]:
    """The first records of a topic: value and timestamp type."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=address, auto_offset_reset="earliest", max_partition_fetch_bytes=MAX_MESSAGE_BYTES
    )
    await consumer.start()
    try:
        async with asyncio.timeout(RETURN_SECONDS):
            return [(record.value, record.timestamp_type) for record in [await consumer.getone() for _ in range(count)]]
    finally:
        await consumer.stop()


async def create_topic(address: str, topic: str) -> None:
    """A topic with one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_both_services_survive_kill_9_and_keep_their_data_between_runs(folder: Path) -> None:
    """Broker and database keep their data after kill -9 and between runs."""
    for run in range(2):
        # New objects and new ports: a second run knows nothing of the first but its folder.
        postgres, broker = EmbeddedPostgres(folder / "postgres"), EmbeddedBroker(folder / "broker")
        async with Supervisor([postgres.spec(), broker.spec()], folder) as supervisor:
            await supervisor.start()
            connection = await connect(postgres.url)
            if run == 0:
                await connection.execute("CREATE TABLE kept (run integer)")
                await create_topic(broker.address, "kept")
            await connection.execute("INSERT INTO kept VALUES ($1)", 2 * run)
            await produce(broker.address, "kept", b"%d" % (2 * run))
            supervisor.kill("postgres")
            supervisor.kill("broker")
            await restarted(supervisor, "postgres", restarts=1)
            await restarted(supervisor, "broker", restarts=1)
            await connection.close()
            connection = await connect(postgres.url)
            await connection.execute("INSERT INTO kept VALUES ($1)", 2 * run + 1)
            await produce(broker.address, "kept", b"%d" % (2 * run + 1))
            rows = [row["run"] for row in await connection.fetch("SELECT run FROM kept ORDER BY run")]
            records = [int(value) for value, _ in await read(broker.address, "kept", 2 * run + 2)]
            await connection.close()
        assert rows == records == list(range(2 * run + 2))
    left = [p for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(str(folder))]
    assert left == []


async def test_the_database_is_as_promised(postgres_server: str) -> None:
    """The database is PostgreSQL 18 in UTF-8, with fsync and synchronous commits."""
    connection = await connect(postgres_server)
    assert connection.get_server_version().major == 18
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    await connection.close()


async def test_each_test_gets_a_database_of_its_own(database_url: str, postgres_server: str) -> None:
    """Each test has its own database."""
    connection = await connect(database_url)
    assert await connection.fetchval("SELECT current_database()") != "fincoach"
    assert database_url != postgres_server
    await connection.close()


async def test_a_stranger_without_the_password_is_refused(folder: Path) -> None:
    """The database refuses a connection without the password."""
    postgres = EmbeddedPostgres(folder / "postgres")
    async with Supervisor([postgres.spec()], folder) as supervisor:
        await supervisor.start()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(host="127.0.0.1", port=postgres.port, user="postgres", password="guessed")
    assert (folder / "postgres" / "password").stat().st_mode & 0o077 == 0


async def test_the_broker_sets_the_time_and_takes_large_records(broker_address: str) -> None:
    """The broker sets record times and accepts large records."""
    topic = unique("large")
    await create_topic(broker_address, topic)
    await produce(broker_address, topic, b"x" * (4 * 1024 * 1024), timestamp_ms=867_000_000_000)
    [(value, timestamp_type)] = await read(broker_address, topic, 1)
    assert len(value) == 4 * 1024 * 1024
    assert timestamp_type == 1  # LogAppendTime


async def test_a_stale_lock_file_of_postgres_keeps_nobody_out(folder: Path) -> None:
    """Postgres starts although a stale lock file names another living process."""
    postgres = EmbeddedPostgres(folder / "postgres")
    async with Supervisor([postgres.spec()], folder) as supervisor:
        await supervisor.start()
        lock = (folder / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
    lock[0] = str(os.getpid())  # a living process that is no Postgres
    (folder / "postgres" / "data" / "postmaster.pid").write_text("\n".join(lock) + "\n")
    async with Supervisor([postgres.spec()], folder) as supervisor:
        await supervisor.start()
        assert supervisor.state("postgres").restarts == 0


async def test_a_busy_backend_of_a_killed_postgres_does_not_stop_its_return(folder: Path) -> None:
    """Postgres restarts although a backend of the killed server is still busy."""
    postgres = EmbeddedPostgres(folder / "postgres")
    async with Supervisor([postgres.spec()], folder) as supervisor:
        await supervisor.start()
        connection = await connect(postgres.url)
        backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
        backend.send_signal(signal.SIGSTOP)  # it cannot notice anything
        supervisor.kill("postgres")
        await restarted(supervisor, "postgres", restarts=1)
        assert supervisor.state("postgres").restarts == 1
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
        connection.terminate()


async def test_a_server_that_somebody_else_runs_is_left_alone(folder: Path) -> None:
    """A server that somebody else runs on the data folder is left alone."""
    postgres = EmbeddedPostgres(folder / "postgres")
    async with Supervisor([postgres.spec()], folder) as supervisor:
        await supervisor.start()
        pid = supervisor.state("postgres").pid
        second = EmbeddedPostgres(folder / "postgres").spec()
        assert second.before_start is not None
        with pytest.raises(FolderInUseError, match=f"process {pid}"):
            await second.before_start()
        assert supervisor.state("postgres").pid == pid


def test_postgres_never_runs_as_root(folder: Path) -> None:
    """Postgres never runs as root."""
    user = EmbeddedPostgres(folder / "postgres").spec().user
    assert user == unprivileged_account()
    assert user is None or user.uid != 0


def test_the_jars_are_whole() -> None:
    """The broker's jars are undamaged."""
    assert damaged_jars(fetch_jars()) == ()


def test_several_brokers_know_each_other(folder: Path) -> None:
    """Several brokers are configured as one cluster."""
    voters = {1: 19093, 2: 19193, 3: 19293}
    brokers = [
        EmbeddedBroker(folder / str(node), controller_port=port, node_id=node, voters=voters, cluster_id="a" * 22)
        for node, port in voters.items()
    ]
    quorum = {broker.properties()["controller.quorum.voters"] for broker in brokers}
    assert quorum == {"1@127.0.0.1:19093,2@127.0.0.1:19193,3@127.0.0.1:19293"}
    assert {broker.properties()["offsets.topic.replication.factor"] for broker in brokers} == {"3"}
