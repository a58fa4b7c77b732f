"""The relay between a real database and a real broker: in order, at least once, never by a cursor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import sqlalchemy as sa

from backends.broker.interface import OutgoingRecord
from backends.broker.kafka import BrokerProducer
from backends.database.outbox import BATCH_BYTES, BATCH_ROWS, SLICE_ROWS, OutboxRelay
from backends.database.unit_of_work import Database
from schemas.errors import RetryLaterError
from schemas.tables import outbox
from schemas.topics import Topic
from schemas.vocabulary import Service
from tests.integration.backends_topics import created_topic, database_of, producing, records_on, values_on
from tests.processes import eventually

TERMINATE = sa.text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = :name")


class Interrupted:
    """A real producer before which something goes wrong, once for each of ``before``; counts what it was asked."""

    def __init__(self, producer: BrokerProducer, *before: Callable[[], Awaitable[None]]) -> None:
        self.asked = 0
        self._producer = producer
        self._before = list(before)

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Publish, unless something goes wrong before."""
        self.asked += 1
        if self._before:
            await self._before.pop(0)()
        await self._producer.publish_batch(records)


async def broker_away() -> None:
    """Fail as a producer whose broker is away does."""
    message = "the broker is away"
    raise RetryLaterError(message)


@contextlib.asynccontextmanager
async def relaying(relay: OutboxRelay) -> AsyncIterator[None]:
    """Run a relay while the block runs."""
    life = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life


async def announce(database: Database, topic: Topic, *values: bytes) -> None:
    """Put values into the outbox, in one transaction."""
    async with database.transaction() as work:
        for value in values:
            await work.publish_raw(topic, b"key", value, headers={"h": "1"})


async def unpublished(database: Database) -> list[bytes]:
    """Return what is not marked as published."""
    async with database.reading() as connection:
        waiting = sa.select(outbox.c.payload).where(outbox.c.published_at.is_(None)).order_by(outbox.c.id)
        return list((await connection.execute(waiting)).scalars())


async def test_rows_are_published_in_order_with_key_and_headers_and_then_marked(
    broker_address: str, database_url: str
) -> None:
    """Rows are published in order with key and headers, then marked."""
    topic = await created_topic(broker_address, "outbox")
    values = [str(number).encode() for number in range(BATCH_ROWS + 20)]
    async with database_of(Service.DEPLOYER, database_url) as database, producing(broker_address) as producer:
        relay = OutboxRelay(database, producer)
        await announce(database, topic, *values)
        assert [await relay.publish_once() for _ in range(3)] == [BATCH_ROWS, 20, 0]
        assert await unpublished(database) == []
    records = await records_on(broker_address, topic)
    assert [record.value for record in records] == values
    assert (records[0].key, records[0].headers) == (b"key", {"h": "1"})


async def test_a_row_that_commits_late_behind_published_ones_is_published_too(
    broker_address: str, database_url: str
) -> None:
    """A row that commits after rows with higher ids is published too."""
    topic = await created_topic(broker_address, "late")
    async with database_of(Service.STREAMS, database_url) as database, producing(broker_address) as producer:
        relay = OutboxRelay(database, producer)
        async with database.transaction() as slow:
            await slow.publish_raw(topic, None, b"begun first, committed last")
            await announce(database, topic, b"quick")
            assert await relay.publish_once() == 1
        assert await relay.publish_once() == 1
    assert await values_on(broker_address, topic) == [b"quick", b"begun first, committed last"]


async def test_a_service_publishes_its_own_rows_only(broker_address: str, database_url: str) -> None:
    """A relay publishes only the rows of its service."""
    topic = await created_topic(broker_address, "services")
    async with (
        database_of(Service.STREAMS, database_url) as streams,
        database_of(Service.TRAINERS, database_url) as trainers,
        producing(broker_address) as producer,
    ):
        await announce(streams, topic, b"of streams")
        await announce(trainers, topic, b"of trainers")
        assert await OutboxRelay(trainers, producer).publish_once() == 1
        assert await unpublished(streams) == [b"of streams"]
    assert await values_on(broker_address, topic) == [b"of trainers"]


async def test_nothing_is_marked_before_the_broker_has_it(broker_address: str, database_url: str) -> None:
    """No row is marked before the broker has it."""
    topic = await created_topic(broker_address, "unacknowledged")
    async with database_of(Service.STREAMS, database_url) as database, producing(broker_address) as producer:
        await announce(database, topic, b"row")
        relay = OutboxRelay(database, Interrupted(producer, broker_away))
        with pytest.raises(RetryLaterError):
            await relay.publish_once()
        assert await unpublished(database) == [b"row"]
        assert await relay.publish_once() == 1
        assert await unpublished(database) == []
    assert await values_on(broker_address, topic) == [b"row"]


async def test_a_running_relay_outlives_broker_and_database(broker_address: str, database_url: str) -> None:
    """A relay continues after a restart of broker or database."""
    topic = await created_topic(broker_address, "outlives")
    async with (
        database_of(Service.STREAMS, database_url, name="relay") as database,
        database_of(Service.ADMIN, database_url) as admin,
        producing(broker_address) as producer,
    ):

        async def database_restarts() -> None:
            async with admin.reading() as connection:
                await connection.execute(TERMINATE, {"name": "relay"})

        publisher = Interrupted(producer, broker_away, database_restarts)
        await announce(admin, topic, b"of another service")
        await announce(database, topic, b"row")

        async def published() -> bool:
            return await unpublished(admin) == [b"of another service"]

        async with relaying(OutboxRelay(database, publisher, poll_seconds=0.01)):
            await eventually(published, what="the row to be published")
    assert publisher.asked == 3
    # Published, then the mark was lost with the connection: at least once, never less.
    assert await values_on(broker_address, topic) == [b"row", b"row"]


async def test_two_relays_of_one_service_take_turns(broker_address: str, database_url: str) -> None:
    """Two relays of one service take turns."""
    topic = await created_topic(broker_address, "two")
    values = [str(number).encode() for number in range(300)]
    async with (
        database_of(Service.STREAMS, database_url) as first,
        database_of(Service.STREAMS, database_url) as second,
        producing(broker_address) as producer,
    ):

        async def published() -> bool:
            return not await unpublished(first)

        relays = [OutboxRelay(database, producer, poll_seconds=0.001) for database in (first, second)]
        async with relaying(relays[0]), relaying(relays[1]):
            for start in range(0, 300, 20):
                await announce(first, topic, *values[start : start + 20])
            await eventually(published, what="all rows to be published")
    assert await values_on(broker_address, topic) == values


async def test_a_second_relay_does_not_wait_for_the_first(broker_address: str, database_url: str) -> None:
    """A second relay does not wait for the lock of the first."""
    topic = await created_topic(broker_address, "busy")
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        entered.set()
        await leave.wait()

    async with (
        database_of(Service.STREAMS, database_url) as first,
        database_of(Service.STREAMS, database_url) as second,
        producing(broker_address) as producer,
    ):
        await announce(first, topic, b"row")
        busy = asyncio.create_task(OutboxRelay(first, Interrupted(producer, hang)).publish_once())
        async with asyncio.timeout(10):
            await entered.wait()
            assert await OutboxRelay(second, producer).publish_once() == 0
            leave.set()
            assert await busy == 1
    assert await values_on(broker_address, topic) == [b"row"]


async def test_a_relay_that_is_woken_does_not_wait_for_its_next_look(broker_address: str, database_url: str) -> None:
    """A relay that is woken publishes at once."""
    topic = await created_topic(broker_address, "woken")
    async with database_of(Service.DEPLOYER, database_url) as database, producing(broker_address) as producer:
        relay = OutboxRelay(database, producer, poll_seconds=3_600)

        async def published() -> bool:
            relay.wake()
            return not await unpublished(database)

        async with relaying(relay):
            await announce(database, topic, b"row")
            await eventually(published, what="the woken relay", seconds=20)
    assert await values_on(broker_address, topic) == [b"row"]


async def test_large_rows_are_published_a_few_at_a_time(broker_address: str, database_url: str) -> None:
    """A relay holds only a few large rows in memory at a time."""
    topic = await created_topic(broker_address, "large")
    large = bytes(BATCH_BYTES - 1)
    async with database_of(Service.STREAMS, database_url) as database, producing(broker_address) as producer:
        await announce(database, topic, b"first", large, b"third", large, b"last")
        relay = OutboxRelay(database, producer)
        assert [await relay.publish_once() for _ in range(3)] == [2, 2, 1]
    assert await values_on(broker_address, topic) == [b"first", large, b"third", large, b"last"]


async def test_what_was_acknowledged_before_the_broker_went_is_marked(broker_address: str, database_url: str) -> None:
    """Rows that were acknowledged before the broker went away are marked."""
    topic = await created_topic(broker_address, "half")
    values = [str(number).encode() for number in range(SLICE_ROWS + 10)]
    async with database_of(Service.STREAMS, database_url) as database, producing(broker_address) as producer:
        await announce(database, topic, *values)

        async def nothing() -> None:
            """Let the first slice pass."""

        relay = OutboxRelay(database, Interrupted(producer, nothing, broker_away))
        assert await relay.publish_once() == SLICE_ROWS
        assert await unpublished(database) == values[SLICE_ROWS:]
        assert await relay.publish_once() == 10
    assert await values_on(broker_address, topic) == values
