"""Support for tests of the streams service: a ledger that begins at the topic's end, producers, and running workers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from backends.broker.kafka import BrokerProducer, create_topics
from backends.clock import SystemClock
from backends.database.unit_of_work import Database
from backends.service_process import open_database
from fincoach_events.events import AnyBehavioralEvent, TransactionCreated, encode_event
from schemas.topics import BEHAVIORAL_EVENTS, PREDICTIONS
from schemas.vocabulary import Service
from stack.ports import free_port
from streams.bootstrap import CONNECTIONS, Worker, build_worker, create_changelog
from streams.settings import StreamsSettings
from tests.services import WIDE_PARTITIONS, connect

WAIT_SECONDS = 60.0
EVENT_TIME = dt.datetime(2026, 1, 5, 12, 0, tzinfo=dt.UTC)
Outgoing = tuple[str, bytes | None, bytes | None, dict[str, str]]


def transaction(number: int, *, users: int = 50, **changes: object) -> TransactionCreated:
    """Return transaction ``number``, which determines its id, user, time and amount."""
    fields: dict[str, object] = {
        "event_id": uuid.uuid5(uuid.NAMESPACE_OID, f"event-{number}"),
        "user_id": uuid.uuid5(uuid.NAMESPACE_OID, f"user-{number % users}"),
        "occurred_at": EVENT_TIME + dt.timedelta(minutes=number),
        "consent": True,
        "amount_minor": 1_000 + 37 * (number % 100),
        "currency": "USD",
        "category": ("groceries", "transport", "health", "dine_out")[number % 4],
        "transaction_type": "debit",
        **changes,
    }
    return TransactionCreated(**fields)  # type: ignore[arg-type]


def outgoing(event: AnyBehavioralEvent, *, raw: bytes | None = None) -> Outgoing:
    """Return ``event`` as a producer would send it, or other bytes under its key."""
    value = raw if raw is not None else encode_event(event)
    return (BEHAVIORAL_EVENTS.name, str(event.user_id).encode(), value, {})


@contextlib.asynccontextmanager
async def producing(brokers: str) -> AsyncIterator[BrokerProducer]:
    """Give a started producer."""
    producer = BrokerProducer(brokers, client_id="test")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def begin_at_the_end(brokers: str, database_url: str) -> None:
    """Start the ledger of a fresh database at the current ends of the topics, so that tests can share a broker."""
    await create_topics(brokers, wide_partitions=WIDE_PARTITIONS)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    connection = await connect(database_url)
    try:
        for topic in (BEHAVIORAL_EVENTS, PREDICTIONS):
            ends = await consumer.end_offsets([TopicPartition(topic.name, number) for number in range(WIDE_PARTITIONS)])
            await connection.executemany(
                "INSERT INTO ledger (topic, generation, partition, next_offset) VALUES ($1, $2, $3, $4)",
                [(topic.name, topic.generation, place.partition, end) for place, end in ends.items()],
            )
    finally:
        await connection.close()
        await consumer.stop()


def settings_for(brokers: str, database_url: str, folder: Path, **changes: object) -> StreamsSettings:
    """Return settings of a worker for tests."""
    values: dict[str, object] = {
        "brokers": brokers,
        "database_url": SecretStr(database_url),
        "folder": folder,
        "wide_partitions": WIDE_PARTITIONS,
        "session_timeout_seconds": 6.0,
        "readiness_seconds": 0.2,
        **changes,
    }
    return StreamsSettings(**values)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def database_of(database_url: str) -> AsyncIterator[Database]:
    """Give the service's database."""
    database = open_database(
        Service.STREAMS, StreamsSettings(database_url=SecretStr(database_url)), name="streams", connections=CONNECTIONS
    )
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def running_worker(settings: StreamsSettings) -> AsyncIterator[Worker]:
    """Run a worker in the test's loop, without relay and control. A block that succeeds waits until Faust has fully started."""
    (settings.folder / "streams").mkdir(parents=True, exist_ok=True)
    await create_changelog(settings)
    database = open_database(Service.STREAMS, settings, name="streams", connections=CONNECTIONS)
    worker = build_worker(settings, database, SystemClock())
    tasks = [
        asyncio.ensure_future(task)
        for task in (worker.reader.run(), worker.follow(), worker.agent.run(), worker.clear_limits(), worker.watch())
    ]
    try:
        yield worker
        await until_started(worker)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await worker.stop_consuming()
        await database.close()


@dataclass(slots=True)
class WorkerProcess:
    """A worker in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def kill(self) -> None:
        """Kill it without warning, like a failing machine."""
        self.process.kill()
        self.process.wait(timeout=10)

    def get(self, path: str) -> tuple[int, bytes]:
        """Request ``path`` from its HTTP endpoint."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def start_worker_process(settings: StreamsSettings, *, name: str) -> WorkerProcess:
    """Start ``python -m streams`` with ``settings``."""
    port, log = free_port(), settings.folder / f"{name}.log"
    environment = {
        **os.environ,  # noqa: TID251 - the process under test is set up by its environment
        "FINCOACH_BROKERS": settings.brokers,
        "FINCOACH_DATABASE_URL": settings.database_url.get_secret_value(),
        "FINCOACH_FOLDER": str(settings.folder),
        "FINCOACH_WIDE_PARTITIONS": str(settings.wide_partitions),
        "FINCOACH_SESSION_TIMEOUT_SECONDS": str(settings.session_timeout_seconds),
        "FINCOACH_READINESS_SECONDS": str(settings.readiness_seconds),
        "FINCOACH_BATCH_RECORDS": str(settings.batch_records),
        "FINCOACH_INSTANCE": name,
        "FINCOACH_PORT": str(port),
    }
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, "-m", "streams"], env=environment, stderr=file, stdout=file)
    return WorkerProcess(process, port, log)


@contextlib.contextmanager
def worker_process(settings: StreamsSettings, *, name: str) -> Iterator[WorkerProcess]:
    """Give a worker process, and kill it at the end."""
    worker = start_worker_process(settings, name=name)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.wait(timeout=10)


async def until(condition: Callable[[], Awaitable[bool]], *, what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until ``condition`` holds; the error names ``what`` was awaited."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"waited {seconds} s in vain for {what}") from error


async def until_read(connection: asyncpg.Connection, records: int, *, topic: str = BEHAVIORAL_EVENTS.name) -> None:
    """Wait until the panes of ``topic`` hold ``records`` records."""

    async def read() -> bool:
        found = await connection.fetchval("SELECT coalesce(sum(records), 0) FROM panes WHERE topic = $1", topic)
        return int(found) >= records

    await until(read, what=f"{records} records in the panes of {topic}")


async def until_started(worker: Worker) -> None:
    """Wait until Faust has fully started: it reads events earlier, but a stop before this raises."""
    tables: Any = worker.app.tables

    async def recovered() -> bool:
        return bool(tables.recovery.completed.is_set())

    await until(recovered, what="the end of Faust's recovery")


async def pane_sums(connection: asyncpg.Connection) -> dict[str, int]:
    """Return the sums over all panes of the events' topic."""
    row = await connection.fetchrow(
        "SELECT sum(records) AS records, sum(archived) AS archived, sum(duplicates) AS duplicates,"
        " sum(dead_lettered) AS dead_lettered, sum(not_consented) AS not_consented FROM panes WHERE topic = $1",
        BEHAVIORAL_EVENTS.name,
    )
    return {name: int(value or 0) for name, value in row.items()}


async def counted(connection: asyncpg.Connection, model_type: str, field: str = "counted") -> int:
    """Return the sum of one counter of a model over all panes."""
    rows = await connection.fetch("SELECT counts FROM panes WHERE topic = $1", BEHAVIORAL_EVENTS.name)
    return sum(msgspec.json.decode(row["counts"]).get(model_type, {}).get(field, 0) for row in rows)


async def holes(connection: asyncpg.Connection) -> int:
    """Return how many panes do not begin where the previous one of their partition ended."""
    found = await connection.fetchval(
        "SELECT count(*) FROM (SELECT from_offset, lag(to_offset) OVER (PARTITION BY topic, generation, partition"
        " ORDER BY from_offset) AS before FROM panes) AS p WHERE before IS NOT NULL AND before <> from_offset"
    )
    return int(found)


def in_batches(items: Sequence[Outgoing], size: int) -> Iterator[Sequence[Outgoing]]:
    """Yield slices of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
