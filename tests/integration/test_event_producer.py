"""The host's producer against a real broker: order, keys, acknowledgements, restarts of the broker."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import os
import signal
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner

from fincoach_events import (
    EventProducer,
    OutgoingEvent,
    PageViewed,
    ProducerBusyError,
    ProducerSettings,
    SyncEventProducer,
)
from fincoach_events.delivery import Compression
from fincoach_events.events import decode_event
from stack.broker import EmbeddedBroker
from tests.services import running_in_background, unique

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
PARTITIONS = 4
LOG_APPEND_TIME = 1


async def new_topic(address: str) -> str:
    """Create a topic as the register would."""
    topic = unique("events")
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(4 * 1024 * 1024)}
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=settings)])
    finally:
        await admin.close()
    return topic


@pytest.fixture
async def topic(broker_address: str) -> str:
    """A topic of this test's own."""
    return await new_topic(broker_address)


async def records(address: str, topic: str) -> list[Any]:
    """Everything on a topic, each partition in its order."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=address, auto_offset_reset="earliest", max_partition_fetch_bytes=4 * 1024 * 1024
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < sum(ends.values()):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    found += batch
        return found
    finally:
        await consumer.stop()


def settings_for(topic: str, **changes: Any) -> ProducerSettings:  # noqa: ANN401 - any field of the settings
    """Settings of a producer for a topic."""
    return ProducerSettings(topic=topic, **changes)


async def view(producer: EventProducer, number: int, *, user: int = 0) -> UUID:
    """Record a page view whose address is a number."""
    return await producer.record(
        "page_view", user_id=UUID(int=user), occurred_at=NOON, idempotency_key=f"view:{number}", page_url=str(number)
    )


@pytest.mark.parametrize("compression", ["zstd", "gzip", "lz4", "snappy", None])
async def test_events_arrive_whole_keyed_and_in_order(
    broker_address: str, topic: str, compression: Compression | None
) -> None:
    """Events arrive once, unchanged and keyed; those of one user stay in order."""
    acknowledged: dict[UUID | None, tuple[int, int]] = {}

    def note(event: OutgoingEvent, partition: int, offset: int) -> None:
        acknowledged[event.event_id] = (partition, offset)

    producer = EventProducer(
        broker_address,
        consent_default=True,
        settings=settings_for(topic, compression=compression),
        on_acknowledged=note,
    )
    async with producer:
        sent = [await view(producer, number, user=number % 17) for number in range(2_000)]
        await producer.flush(30)
        assert (producer.accepted, producer.acknowledged, producer.undelivered, producer.pending) == (
            2_000,
            2_000,
            0,
            0,
        )
    found = await records(broker_address, topic)
    events = [decode_event(record.value) for record in found]
    assert {event.event_id for event in events} == set(sent)
    assert len(found) == 2_000
    assert all(record.key == str(event.user_id).encode() for record, event in zip(found, events, strict=True))
    assert all(
        acknowledged[event.event_id] == (record.partition, record.offset)
        for record, event in zip(found, events, strict=True)
    )
    pages = collections.defaultdict(list)
    for event in events:
        pages[event.user_id].append(int(event.page_url or ""))
    assert all(numbers == sorted(numbers) for numbers in pages.values())


async def test_partitions_are_those_of_other_clients(broker_address: str, topic: str) -> None:
    """A user's events go to the partition that other clients choose."""
    async with EventProducer(broker_address, consent_default=True, settings=settings_for(topic)) as producer:
        for number in range(100):
            await view(producer, number, user=number)
    rule = DefaultPartitioner()
    for record in await records(broker_address, topic):
        assert record.partition == rule(record.key, list(range(PARTITIONS)), [])
        assert record.timestamp_type == LOG_APPEND_TIME


async def test_one_event_can_be_waited_for(broker_address: str, topic: str) -> None:
    """A caller can wait until one event is acknowledged."""
    event = PageViewed(event_id=UUID(int=1), user_id=UUID(int=2), occurred_at=NOON, consent=True, page_url="/")
    async with EventProducer(broker_address, consent_default=True, settings=settings_for(topic)) as producer:
        answer = await asyncio.wait_for(producer.deliver(event), 20)
    (record,) = await records(broker_address, topic)
    assert (answer.event_id, answer.partition, answer.offset) == (event.event_id, record.partition, record.offset)


async def test_large_events_and_foreign_bytes_pass(broker_address: str, topic: str) -> None:
    """Events near the limit and foreign bytes are sent."""
    settings = settings_for(topic, max_event_bytes=3 * 1024 * 1024, compression=None)
    large = b"x" * (2 * 1024 * 1024)
    async with EventProducer(broker_address, consent_default=True, settings=settings) as producer:
        await producer.send_bytes(b"not json", key=None)
        await producer.send_bytes(large, key=b"k")
        for number in range(PARTITIONS):
            await producer.send_bytes(b"keyless %d" % number, key=None)
        await producer.flush(30)
    found = await records(broker_address, topic)
    assert {len(record.value) for record in found} == {8, 9, len(large)}
    assert len({record.partition for record in found if record.key is None}) == PARTITIONS


async def test_what_the_broker_refuses_is_reported_and_the_rest_arrives(broker_address: str) -> None:
    """An event that the broker refuses is reported, and the others arrive."""
    topic = unique("small")
    admin = AIOKafkaAdminClient(bootstrap_servers=broker_address)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "2000"})])
    await admin.close()
    lost: list[str] = []
    producer = EventProducer(
        broker_address,
        consent_default=True,
        settings=settings_for(topic, compression=None, batch_bytes=1_000),
        on_undelivered=lambda _, reason: lost.append(reason),
    )
    await producer.start()
    await producer.send_bytes(b"x" * 10_000, key=None)
    await view(producer, 1)
    with pytest.raises(Exception, match="1 events"):
        await producer.close(20)
    assert "refused" in lost[0]
    assert (producer.acknowledged, producer.undelivered) == (1, 1)
    assert [decode_event(record.value).page_url for record in await records(broker_address, topic)] == ["1"]


async def test_a_topic_that_comes_later_gets_what_was_accepted(broker_address: str) -> None:
    """Accepted events wait for a topic that is created later."""
    topic = unique("late")
    settings = settings_for(topic, request_timeout_seconds=1.0)
    async with EventProducer(broker_address, consent_default=True, settings=settings) as producer:
        await view(producer, 1)
        with pytest.raises(Exception, match="1 events"):
            await producer.flush(1.5)
        admin = AIOKafkaAdminClient(bootstrap_servers=broker_address)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1)])
        await admin.close()
        await producer.flush(30)
        assert producer.acknowledged == 1


def test_threads_deliver_together(broker_address: str) -> None:
    """Events from several threads all arrive once."""
    topic = asyncio.run(new_topic(broker_address))
    with SyncEventProducer(broker_address, consent_default=True, settings=settings_for(topic)) as producer:
        for number in range(200):
            producer.record("page_view", user_id=UUID(int=number), occurred_at=NOON, page_url=str(number))
        event = PageViewed(event_id=UUID(int=1), user_id=UUID(int=2), occurred_at=NOON, consent=True, page_url="200")
        assert producer.send(event) == event.event_id
        producer.flush(30)
        assert (producer.acknowledged, producer.undelivered, producer.pending) == (201, 0, 0)
    pages = {decode_event(record.value).page_url for record in asyncio.run(records(broker_address, topic))}
    assert pages == {str(number) for number in range(201)}


async def test_a_killed_broker_costs_no_accepted_event() -> None:
    """A killed or frozen broker loses no accepted event and does not block the host."""
    with tempfile.TemporaryDirectory(prefix="fincoach-producer-") as name:
        broker = EmbeddedBroker(Path(name) / "broker")
        with running_in_background(broker.spec(), folder=Path(name)) as supervisor:
            topic = await new_topic(broker.address)
            settings = settings_for(topic, max_buffered_events=200, max_block_seconds=0.05, request_timeout_seconds=3.0)
            producer = EventProducer(broker.address, consent_default=True, settings=settings)
            await producer.start()
            sent = [await view(producer, number) for number in range(100)]
            await producer.flush(30)
            pid = supervisor.state(broker.spec().name).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            slowest = 0.0
            refused = 0
            clock = asyncio.get_running_loop().time
            while refused < 3:
                started = clock()
                try:
                    sent.append(await view(producer, len(sent)))
                except ProducerBusyError:
                    refused += 1
                slowest = max(slowest, clock() - started)
            assert len(sent) >= 300
            assert slowest < 1.0
            await producer.flush(60)
            assert (producer.acknowledged, producer.undelivered) == (len(sent), 0)
            found = [decode_event(record.value) for record in await records(broker.address, topic)]
            assert {event.event_id for event in found} == set(sent)
            await producer.close()
