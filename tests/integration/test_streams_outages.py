"""Outages: the database goes away under a running worker, or another worker has advanced the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka import TopicPartition

from backends.broker.partitions import PartitionReader, Reading
from backends.database.repositories.ingestion import next_offsets
from backends.database.unit_of_work import Database
from backends.telemetry.metrics import REGISTRY
from schemas.topics import BEHAVIORAL_EVENTS, Topic
from stack.broker import EmbeddedBroker
from streams.batches.intake import FetchedRecord
from streams.bootstrap import Worker
from streams.settings import StreamsSettings
from tests.integration.streams_workers import (
    begin_at_the_end,
    counted,
    holes,
    outgoing,
    pane_sums,
    producing,
    running_worker,
    settings_for,
    transaction,
    until,
    until_read,
    worker_process,
)
from tests.services import connect, database_address, running_in_background


@pytest.fixture
async def settings(broker_address: str, database_url: str, tmp_path: Path) -> StreamsSettings:
    """Give the settings of a worker that sees only what this test sends."""
    await begin_at_the_end(broker_address, database_url)
    return settings_for(broker_address, database_url, tmp_path, batch_records=50)


async def close_database(server: asyncpg.Connection, name: str, *, closed: bool) -> None:
    """Reject connections to a database and end existing ones, or allow them again."""
    await server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {"false" if closed else "true"}')
    if closed:
        await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)


async def test_events_wait_in_the_broker_while_the_database_is_away(
    settings: StreamsSettings, database_url: str, postgres_server: str
) -> None:
    """An outage of the database loses no event, repeats none, and does not end the worker."""
    server = await connect(database_address(postgres_server, "postgres"))
    name = urlsplit(database_url).path.lstrip("/")
    records = [outgoing(transaction(number)) for number in range(900)]
    async with producing(settings.brokers) as producer, running_worker(settings) as worker:
        await producer.publish_batch(records[:300])
        connection = await connect(database_url)
        await until_read(connection, 300)
        await connection.close()
        await close_database(server, name, closed=True)
        await producer.publish_batch(records[300:600])

        async def paused() -> bool:
            return not worker.reader.placed

        await until(paused, what="a partition without position")
        await close_database(server, name, closed=False)
        await producer.publish_batch(records[600:])
        connection = await connect(database_url)
        await until_read(connection, 900)
        assert (await pane_sums(connection))["archived"] == 900
        assert await counted(connection, "spending") == 900
        assert await holes(connection) == 0
        assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 900
        await connection.close()
        await until(healthy(worker), what="readiness after the outage")
    await server.close()


def healthy(worker: Worker) -> Callable[[], Awaitable[bool]]:
    """Return the condition that all checks of the worker hold."""

    async def hold() -> bool:
        worker.facts()
        return all(worker.checks().values())

    return hold


async def test_a_worker_that_lost_the_compare_reads_on_from_the_ledger(
    settings: StreamsSettings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A woken zombie neither counts again nor stands still."""
    stale: set[tuple[str, int]] = set()

    async def read_too_early(database: Database, topic: Topic, partitions: list[int]) -> dict[int, int]:
        places = {(topic.name, number) for number in partitions} - stale
        stale.update(places)
        offsets = await next_offsets(database, topic, partitions)
        return {number: offset - min(offset, 3 * len(places)) for number, offset in offsets.items()}

    records = [outgoing(transaction(number)) for number in range(400)]
    connection = await connect(database_url)
    async with producing(settings.brokers) as producer:
        await producer.publish_batch(records[:200])
        async with running_worker(settings):
            await until_read(connection, 200)
        monkeypatch.setattr(
            "streams.bootstrap.next_offsets", read_too_early
        )  # as if another worker had moved on meanwhile
        lost = lost_compares()
        async with running_worker(settings):
            await producer.publish_batch(records[200:])
            await until_read(connection, 400)
    assert lost_compares() > lost
    assert (await pane_sums(connection))["archived"] == 400
    assert await holes(connection) == 0
    await connection.close()


async def test_fetches_that_are_lost_on_their_way_are_read_again(
    settings: StreamsSettings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker jumps over nothing that the broker has, however often a fetch is lost."""
    take, lost = PartitionReader.take, Counter[TopicPartition]()

    async def lose_twice(
        reader: PartitionReader, place: TopicPartition, reading: Reading, records: Sequence[FetchedRecord]
    ) -> None:
        lost[place] += 1
        if lost[place] > 2:
            await take(reader, place, reading, records)

    monkeypatch.setattr(PartitionReader, "take", lose_twice)
    connection = await connect(database_url)
    async with producing(settings.brokers) as producer:
        await producer.publish_batch([outgoing(transaction(number, users=1)) for number in range(150)])
        async with running_worker(settings):
            await until_read(connection, 150)
    assert max(lost.values()) > 2
    sums = await pane_sums(connection)
    assert (sums["records"], sums["archived"]) == (150, 150)
    await connection.close()


def lost_compares() -> float:
    """Return how many compares this process has lost on the events' topic."""
    name = "fincoach_streams_lost_compares_total"
    return REGISTRY.get_sample_value(name, {"topic": BEHAVIORAL_EVENTS.name}) or 0.0


async def test_records_that_expired_are_a_gap_that_panes_bridge(settings: StreamsSettings, database_url: str) -> None:
    """A worker reads on behind records that retention has deleted, and panes cover the gap."""
    connection = await connect(database_url)
    async with producing(settings.brokers) as producer:
        await producer.publish_batch([outgoing(transaction(number)) for number in range(100)])
        await expire(settings.brokers)
        await producer.publish_batch([outgoing(transaction(number)) for number in range(100, 200)])
        async with running_worker(settings):
            await until_read(connection, 100)
    sums = await pane_sums(connection)
    spans = await connection.fetchval("SELECT sum(to_offset - from_offset) FROM panes")
    assert (sums["records"], sums["archived"], int(spans)) == (100, 100, 200)
    assert await holes(connection) == 0
    await connection.close()


async def test_a_topic_that_lost_its_end_stops_a_running_worker(database_url: str, tmp_path: Path) -> None:
    """A running worker stops with an error when the broker has lost records that it has read."""
    broker, connection = EmbeddedBroker(tmp_path / "broker"), await connect(database_url)
    settings = settings_for(broker.address, database_url, tmp_path, session_timeout_seconds=30.0)
    with contextlib.ExitStack() as ends:
        with running_in_background(broker.spec(), folder=tmp_path):
            await begin_at_the_end(broker.address, database_url)
            worker = ends.enter_context(worker_process(settings, name="cut"))
            async with producing(broker.address) as producer:
                await producer.publish_batch([outgoing(transaction(number)) for number in range(400)])
                await until_read(connection, 400)
        for segment in (tmp_path / "broker" / "data").glob(f"{BEHAVIORAL_EVENTS.name}-*/0*"):
            segment.unlink()
        with running_in_background(broker.spec(), folder=tmp_path):
            async with producing(broker.address) as producer:
                await producer.publish_batch([outgoing(transaction(number)) for number in range(400, 440)])
            status = await asyncio.to_thread(worker.process.wait, 60)
    assert status == 1
    assert "the broker lost data" in worker.log.read_text()
    await connection.close()


async def expire(brokers: str) -> None:
    """Delete all records of the events' topic, as retention does."""
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415
    from aiokafka.admin.records_to_delete import RecordsToDelete  # noqa: PLC0415
    from aiokafka.structs import TopicPartition  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    places = {TopicPartition(BEHAVIORAL_EVENTS.name, number): RecordsToDelete(before_offset=-1) for number in range(4)}
    await admin.delete_records(places)
    await admin.close()
