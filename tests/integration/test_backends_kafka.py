"""Producer, consumers, positions and topics on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

from backends.broker import positions
from backends.broker.connecting import connected, read_to_end
from backends.broker.interface import Record
from backends.broker.kafka import LARGEST_REQUEST_BYTES, BrokerConsumer, BrokerProducer, create_topics
from backends.broker.positions import end_offsets, first_offset, group_positions
from backends.clock import SystemClock
from schemas.errors import RetryLaterError, SettingsError
from stack.ports import free_port
from tests.integration.backends_topics import (
    consuming,
    created_topic,
    new_topic,
    producing,
    records_on,
    send,
    values_on,
)
from tests.services import unique

WAIT_SECONDS = 20


async def fetched(consumer: BrokerConsumer, count: int) -> list[Record]:
    """Return the next ``count`` records."""
    records: list[Record] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(records) < count:
            records += await consumer.fetch(timeout_seconds=0.2)
    assert len(records) == count
    return records


async def test_a_producer_is_replaced_when_the_broker_takes_nothing_more_of_it(broker_address: str) -> None:
    """A producer that the broker refuses after an outage is replaced."""
    topic = await created_topic(broker_address, "spent")
    async with producing(broker_address) as producer:
        await producer.publish(topic.name, b"k", b"before")
        # What an outage leaves behind: batches that got their sequence numbers and ran out of time.
        client = producer._producer
        assert client is not None
        client._txn_manager.increment_sequence_number(TopicPartition(topic.name, 0), 3)
        with pytest.raises(RetryLaterError, match="OutOfOrderSequenceNumber"):
            await producer.publish(topic.name, b"k", b"refused")
        await producer.publish_batch([(topic.name, b"k", b"first", {}), (topic.name, b"k", b"second", {})])
    assert await values_on(broker_address, topic) == [b"before", b"first", b"second"]


async def test_topics_are_created_once_and_as_the_register_says(broker_address: str) -> None:
    """Topics are created once, with the settings of the register."""
    narrow, wide = new_topic("narrow"), new_topic("wide", wide=True)
    first = await create_topics(broker_address, wide_partitions=3, topics=[narrow, wide])
    again = await create_topics(broker_address, wide_partitions=3, topics=[narrow, wide])
    admin = AIOKafkaAdminClient(bootstrap_servers=broker_address)
    await admin.start()
    try:
        described = {item["topic"]: len(item["partitions"]) for item in await admin.describe_topics()}
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, wide.name)])
    finally:
        await admin.close()
    configuration = {entry[0]: entry[1] for entry in response.resources[0][4]}
    assert (first, again) == ([narrow.name, wide.name], [])
    assert (described[narrow.name], described[wide.name]) == (1, 3)
    assert configuration["message.timestamp.type"] == "LogAppendTime"
    assert wide.configuration().items() <= configuration.items()


async def test_several_that_create_topics_at_once_do_not_hinder_each_other(broker_address: str) -> None:
    """Several processes can create the topics at once."""
    topics = [new_topic("together", wide=True) for _ in range(3)]
    await asyncio.gather(*(create_topics(broker_address, wide_partitions=2, topics=topics) for _ in range(4)))
    ends = await end_offsets(broker_address, topics, wide_partitions=2)
    assert ends == {(topic.name, number): 0 for topic in topics for number in range(2)}


async def test_another_number_of_partitions_is_refused_with_the_way_out(broker_address: str) -> None:
    """A topic with another number of partitions is refused, and the error says what to do."""
    topic = await created_topic(broker_address, "narrow", partitions=2)
    with pytest.raises(SettingsError, match=f"{topic.name} has 2 partitions .* set FINCOACH_WIDE_PARTITIONS=2"):
        await create_topics(broker_address, wide_partitions=5, topics=[topic])


async def test_a_topic_that_the_broker_refuses_is_named(broker_address: str) -> None:
    """A topic that the broker refuses is named in the error."""
    topic = new_topic("spaces are not allowed")
    with pytest.raises(SettingsError, match=rf"refused to create {topic.name}: InvalidTopicError"):
        await create_topics(broker_address, wide_partitions=1, topics=[topic])


async def test_what_is_published_is_read_as_it_was(broker_address: str) -> None:
    """Records are read with their key, value and headers, in order."""
    topic = await created_topic(broker_address, "as-it-was")
    before = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    async with producing(broker_address) as producer:
        await producer.publish(topic.name, b"key", b"first", headers={"reason": "naïve"})
        await producer.publish_batch([(topic.name, None, str(number).encode(), {}) for number in range(50)])
        await producer.publish(topic.name, b"key", None)
    records = await records_on(broker_address, topic)
    assert (records[0].key, records[0].value, records[0].headers) == (b"key", b"first", {"reason": "naïve"})
    assert [record.value for record in records[1:51]] == [str(number).encode() for number in range(50)]
    assert (records[51].key, records[51].value) == (b"key", b"")  # a tombstone
    assert [record.offset for record in records] == list(range(52))
    assert all(record.timestamp > before for record in records)


async def test_a_producer_that_was_not_started_loses_nothing_silently(broker_address: str) -> None:
    """Sending before the start or after the stop raises an error."""
    topic = await created_topic(broker_address, "unstarted")
    producer = BrokerProducer(broker_address, client_id="test")
    with pytest.raises(RetryLaterError, match="not started"):
        await producer.publish(topic.name, None, b"too early")
    await producer.start()
    await producer.stop()
    await producer.stop()
    with pytest.raises(RetryLaterError, match="not started"):
        await producer.publish(topic.name, None, b"too late")
    assert await records_on(broker_address, topic) == []


async def test_what_the_broker_does_not_acknowledge_is_an_error(broker_address: str) -> None:
    """A record that the broker does not acknowledge raises an error."""
    topic = await created_topic(broker_address, "limited")
    async with producing(broker_address) as producer:
        with pytest.raises(RetryLaterError, match="MessageSizeTooLarge"):  # by the client
            await producer.publish(topic.name, None, b"x" * (LARGEST_REQUEST_BYTES + 1))
        with pytest.raises(RetryLaterError, match="MessageSizeTooLarge"):  # by the broker; random bytes do not shrink
            await producer.publish_batch(
                [(topic.name, None, b"small", {}), (topic.name, None, _incompressible(5_400_000), {})]
            )


async def test_a_consumer_alone_reads_every_partition_from_the_beginning(broker_address: str) -> None:
    """A consumer without a group reads every partition from the beginning."""
    topic = await created_topic(broker_address, "alone", partitions=3)
    async with producing(broker_address) as producer:
        await producer.publish_batch([(topic.name, str(number).encode(), b"v", {}) for number in range(30)])
    for _ in range(2):  # a second one sees the same: nothing is committed
        records = await records_on(broker_address, topic)
        assert {record.partition for record in records} == {0, 1, 2}
        assert len(records) == 30


async def test_a_consumer_alone_can_begin_at_a_moment(broker_address: str) -> None:
    """A consumer without a group can begin at a moment."""
    topic = await created_topic(broker_address, "since", partitions=2)
    async with producing(broker_address) as producer:
        await producer.publish(topic.name, b"a", b"old")
        [old] = await records_on(broker_address, topic)
        await asyncio.sleep(0.01)  # the broker's times are in milliseconds
        await producer.publish(topic.name, b"a", b"new")
    consumer = BrokerConsumer(broker_address, [topic], client_id="test")
    await consumer.start(since=old.timestamp + dt.timedelta(milliseconds=1))
    try:
        assert [record.value for record in await read_to_end(consumer)] == [b"new"]
    finally:
        await consumer.stop()


async def test_a_moment_after_all_records_means_from_now_on(broker_address: str) -> None:
    """A moment after all records means from now on."""
    topic = await created_topic(broker_address, "from-now-on")
    await send(broker_address, topic, b"old")
    consumer = BrokerConsumer(broker_address, [topic], client_id="test")
    [old] = await records_on(broker_address, topic)
    await consumer.start(since=old.timestamp + dt.timedelta(hours=1))
    try:
        assert await read_to_end(consumer) == []
        await send(broker_address, topic, b"new")
        assert [record.value for record in await fetched(consumer, 1)] == [b"new"]
    finally:
        await consumer.stop()


async def test_what_comes_while_a_consumer_looks_for_its_moment_is_read(broker_address: str) -> None:
    """A record that arrives while a consumer looks for its moment is read."""
    topic = await created_topic(broker_address, "meanwhile")
    consumer = BrokerConsumer(broker_address, [topic], client_id="test")
    ask = consumer._consumer.offsets_for_times

    async def ask_and_be_late(wanted: dict[TopicPartition, int]) -> object:
        answer = await ask(wanted)
        await send(broker_address, topic, b"just now")
        return answer

    consumer._consumer.offsets_for_times = ask_and_be_late
    await consumer.start(since=SystemClock().now() - dt.timedelta(minutes=30))
    try:
        assert [record.value for record in await fetched(consumer, 1)] == [b"just now"]
    finally:
        await consumer.stop()


async def test_a_consumer_alone_waits_for_its_topic(broker_address: str) -> None:
    """A consumer without a group waits until its topic exists."""
    topic = new_topic("later")
    consumer = BrokerConsumer(broker_address, [topic], client_id="test")
    starting = asyncio.create_task(consumer.start())
    try:
        assert not (await asyncio.wait([starting], timeout=0.5))[0]
        await create_topics(broker_address, wide_partitions=1, topics=[topic])
        await send(broker_address, topic, b"value")
        async with asyncio.timeout(WAIT_SECONDS):
            await starting
        assert [record.value for record in await fetched(consumer, 1)] == [b"value"]
    finally:
        await consumer.stop()


async def test_a_group_goes_on_behind_what_it_committed(broker_address: str) -> None:
    """A group continues behind its committed offset."""
    topic, group = await created_topic(broker_address, "group"), unique("group")
    await send(broker_address, topic, b"0", b"1", b"2")
    async with consuming(broker_address, [topic], group=group) as consumer:
        records = await fetched(consumer, 3)
        await consumer.commit(records[1])
        [lag] = await consumer.lags()
    assert (lag.topic, lag.position, lag.end, lag.records) == (topic.name, 3, 3, 0)
    assert await group_positions(broker_address, group) == {(topic.name, 0): 2}
    async with consuming(broker_address, [topic], group=group) as consumer:
        assert [record.value for record in await fetched(consumer, 1)] == [b"2"]


async def test_rewinding_reads_a_record_and_what_follows_again(broker_address: str) -> None:
    """After rewinding, a record and those that follow it are read again."""
    topic = await created_topic(broker_address, "rewind")
    await send(broker_address, topic, b"0", b"1", b"2")
    async with consuming(broker_address, [topic], group=unique("group")) as consumer:
        records = await fetched(consumer, 3)
        consumer.rewind(records[1])
        assert [lag.records for lag in await consumer.lags()] == [2]
        assert [record.value for record in await fetched(consumer, 2)] == [b"1", b"2"]


async def test_rewinding_a_partition_that_somebody_else_has_by_now_does_nothing(broker_address: str) -> None:
    """Rewinding a partition that was revoked does nothing."""
    topic = await created_topic(broker_address, "rebalanced")
    await send(broker_address, topic, b"0")
    [record] = await records_on(broker_address, topic)
    other = await created_topic(broker_address, "other")
    async with consuming(broker_address, [other]) as consumer:
        consumer.rewind(record)
        assert await read_to_end(consumer) == []


async def test_a_commit_for_a_partition_of_somebody_else_is_tried_again_later(broker_address: str) -> None:
    """A commit for a revoked partition is to be retried later; it is no bug."""
    mine, lost = await created_topic(broker_address, "mine"), await created_topic(broker_address, "lost")
    await send(broker_address, lost, b"0")
    [record] = await records_on(broker_address, lost)
    group = unique("group")
    async with consuming(broker_address, [mine], group=group) as consumer:
        with pytest.raises(RetryLaterError, match="IllegalState"):
            await consumer.commit(record)
        assert await consumer.fetch(timeout_seconds=0.05) == []
    assert await group_positions(broker_address, group) == {}


async def test_connecting_goes_on_until_the_broker_answers(broker_address: str) -> None:
    """A consumer tries to connect until the broker answers."""
    topic = await created_topic(broker_address, "connecting")
    await send(broker_address, topic, b"value")
    addresses = iter([f"127.0.0.1:{free_port()}", broker_address])
    async with asyncio.timeout(WAIT_SECONDS):
        consumer = await connected(lambda: BrokerConsumer(next(addresses), [topic], client_id="test"))
    try:
        assert [record.value for record in await read_to_end(consumer)] == [b"value"]
    finally:
        await consumer.stop()


@contextlib.asynccontextmanager
async def door_to(address: str, port: int) -> AsyncIterator[None]:
    """Listen on ``port`` and hand everything through to the broker."""

    async def hand_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, its_port = address.partition(":")
        beyond, back = await asyncio.open_connection(host, int(its_port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while chunk := await source.read(65_536):
                    sink.write(chunk)
            sink.close()

        await asyncio.gather(pump(reader, back), pump(beyond, writer))

    async with await asyncio.start_server(hand_over, "127.0.0.1", port):
        yield


async def test_a_producer_waits_for_its_broker(broker_address: str) -> None:
    """A producer tries to connect until the broker answers."""
    topic, port = await created_topic(broker_address, "patient"), free_port()
    producer = BrokerProducer(f"127.0.0.1:{port}", client_id="test")
    starting = asyncio.create_task(producer.start())
    assert not (await asyncio.wait([starting], timeout=0.7))[0]
    async with door_to(broker_address, port), asyncio.timeout(WAIT_SECONDS):
        await starting
        await producer.publish(topic.name, None, b"value")
        await producer.stop()
    assert await values_on(broker_address, topic) == [b"value"]


async def test_connecting_can_be_given_up() -> None:
    """Connecting can be cancelled, and leaves no connection open."""
    address = f"127.0.0.1:{free_port()}"
    producer = BrokerProducer(address, client_id="test")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await producer.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await connected(lambda: BrokerConsumer(address, [new_topic("t")], client_id="test"))
    await producer.stop()


async def test_connecting_given_up_while_the_topic_is_missing_leaves_nothing_open(broker_address: str) -> None:
    """Connecting that is cancelled while the topic is missing leaves no connection open."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await connected(lambda: BrokerConsumer(broker_address, [new_topic("missing")], client_id="test"))


async def test_positions_of_a_broker_that_is_away_are_an_error_and_not_nought() -> None:
    """Asking for positions while the broker is away is an error, not zero."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(RetryLaterError):
        await end_offsets(address, [new_topic("t")], wide_partitions=1)
    with pytest.raises(RetryLaterError):
        await group_positions(address, "group")
    with pytest.raises(RetryLaterError):
        await first_offset(address, "t", 0, from_offset=0)


async def test_the_first_record_behind_an_offset_is_told(broker_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first record behind an offset is found, also after retention has deleted that offset."""
    topic = await created_topic(broker_address, "first")
    await send(broker_address, topic, b"0", b"1", b"2")
    assert await first_offset(broker_address, topic.name, 0, from_offset=1) == 1
    await _delete_below(broker_address, TopicPartition(topic.name, 0), 2)
    assert await first_offset(broker_address, topic.name, 0, from_offset=0) == 2
    monkeypatch.setattr(positions, "FIRST_RECORD_SECONDS", 1.0)
    with pytest.raises(RetryLaterError):
        await first_offset(broker_address, topic.name, 0, from_offset=3)


async def _delete_below(brokers: str, place: TopicPartition, offset: int) -> None:
    """Delete records as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.delete_records({place: RecordsToDelete(before_offset=offset)})
    await admin.close()


async def test_ends_are_told_per_partition(broker_address: str) -> None:
    """The end offset is given for each partition."""
    topic = await created_topic(broker_address, "ends")
    await send(broker_address, topic, b"0", b"1")
    assert await end_offsets(broker_address, [topic], wide_partitions=4) == {(topic.name, 0): 2}
    assert await values_on(broker_address, topic) == [b"0", b"1"]


def _incompressible(size: int) -> bytes:
    state, parts = 1, []
    for _ in range(size // 4):
        state = state * 1_664_525 + 1_013_904_223 & 0xFFFFFFFF
        parts.append(state.to_bytes(4, "little"))
    return b"".join(parts)
