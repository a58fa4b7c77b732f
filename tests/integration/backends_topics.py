"""Topics, producers and consumers of tests of the adapters, on the shared broker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from backends.broker.connecting import read_to_end
from backends.broker.interface import Record
from backends.broker.kafka import BrokerConsumer, BrokerProducer, create_topics
from backends.database.engine import create_engine
from backends.database.unit_of_work import Database
from schemas.topics import Topic
from schemas.vocabulary import Service
from tests.services import unique


def new_topic(name: str, *, wide: bool = False) -> Topic:
    """Return a topic of the test's own, not created yet."""
    return Topic(
        name=unique(name), key="test", messages=(), producers=(), consumers=(), retention_seconds=86_400, wide=wide,
        max_message_bytes=5 * 1024 * 1024, tag_field="none",
    )  # fmt: skip


async def created_topic(brokers: str, name: str, *, partitions: int = 1) -> Topic:
    """Return a topic of the test's own on the broker."""
    topic = new_topic(name, wide=partitions > 1)
    await create_topics(brokers, wide_partitions=partitions, topics=[topic])
    return topic


@contextlib.asynccontextmanager
async def producing(brokers: str) -> AsyncIterator[BrokerProducer]:
    """Give a started producer."""
    producer = BrokerProducer(brokers, client_id="test", linger_ms=0)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def consuming(
    brokers: str, topics: Sequence[Topic], *, group: str | None = None
) -> AsyncIterator[BrokerConsumer]:
    """Give a started consumer, of a group or of everything from the beginning."""
    consumer = BrokerConsumer(brokers, topics, client_id="test", group=group)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def send(brokers: str, topic: Topic, *values: bytes) -> None:
    """Send values to a topic and wait until the broker has them."""
    async with producing(brokers) as producer:
        await producer.publish_batch([(topic.name, None, value, {}) for value in values])


async def records_on(brokers: str, topic: Topic) -> list[Record]:
    """Return everything that a topic holds now."""
    async with consuming(brokers, [topic]) as consumer:
        return await read_to_end(consumer)


async def values_on(brokers: str, topic: Topic) -> list[bytes]:
    """Return the values that a topic holds now."""
    return [record.value for record in await records_on(brokers, topic)]


@contextlib.asynccontextmanager
async def database_of(
    service: Service, url: str, *, name: str = "test", idle_in_transaction_seconds: float = 3.0
) -> AsyncIterator[Database]:
    """Give a service's way to the database, with connections of its own."""
    engine = create_engine(url, application_name=name, idle_in_transaction_seconds=idle_in_transaction_seconds)
    database = Database(engine, service)
    try:
        yield database
    finally:
        await database.close()
