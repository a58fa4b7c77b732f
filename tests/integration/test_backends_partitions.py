"""Reading partitions on a real broker: rebalances, transactions, and offsets that decide nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from backends.broker.partitions import PartitionReader, ReadAgainError
from backends.broker.positions import group_positions
from schemas.topics import Topic
from tests.integration.backends_topics import created_topic, producing, records_on, send
from tests.services import unique

WAIT_SECONDS = 40.0
PARTITIONS = 4


class Ledger:
    """Next offsets that several readers share, moved by compare-and-set, and what was taken with each move."""

    def __init__(self) -> None:
        self.next = dict.fromkeys(range(PARTITIONS), 0)
        self.taken: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
        self.spans: list[tuple[int, int, int]] = []
        self.records: list[Any] = []

    async def next_offset(self, _: str, partition: int) -> int:
        """Return the ledger's next offset."""
        return self.next[partition]

    async def take(self, _: str, partition: int, records: Sequence[Any], *, from_offset: int) -> int:
        """Take records after a short delay, like a database."""
        await asyncio.sleep(0.01)
        if self.next[partition] != from_offset:
            raise ReadAgainError
        self.next[partition] = records[-1].offset + 1
        self.taken[partition] += [record.value for record in records]
        self.records += records
        self.spans.append((partition, from_offset, self.next[partition]))
        return self.next[partition]

    def forget(self, topic: str, partition: int) -> None:
        """Do nothing: nothing is cached."""

    @property
    def values(self) -> list[int]:
        """Return the values that were taken, in order of their numbers."""
        return sorted(int(value) for values in self.taken.values() for value in values)


@contextlib.asynccontextmanager
async def reading(brokers: str, topic: Topic, ledger: Ledger, *, group: str) -> AsyncIterator[PartitionReader]:
    """Run a reader."""
    reader = PartitionReader(brokers, [topic.name], ledger, group=group, session_seconds=6, most_records=7)
    running = asyncio.ensure_future(reader.run())
    try:
        yield reader
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await reader.stop()


async def until(condition: Callable[[], object], *, what: str) -> None:
    """Wait until ``condition`` holds."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - what is waited for happens at the broker
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise AssertionError(f"waited {WAIT_SECONDS} s in vain for {what}") from error


async def test_readers_that_come_and_go_take_every_record_once(broker_address: str) -> None:
    """A rebalance under load loses nothing, takes nothing twice, and keeps the order of each partition."""
    topic, group, ledger = (
        await created_topic(broker_address, "shared", partitions=PARTITIONS),
        unique("group"),
        Ledger(),
    )
    sent = 0
    async with producing(broker_address) as producer, reading(broker_address, topic, ledger, group=group) as first:

        async def send_some() -> None:
            nonlocal sent
            numbers = [str(number).encode() for number in range(sent, sent + 300)]
            sent += len(numbers)
            await producer.publish_batch([(topic.name, number, number, {}) for number in numbers])

        await send_some()
        await until(lambda: ledger.values, what="the first batch")
        async with reading(broker_address, topic, ledger, group=group) as second:
            await send_some()
            await until(lambda: second.placed and first.placed and len(first.readings) == 2, what="two readers")
            await send_some()
            await until(lambda: len(ledger.values) > sent - 200, what="most records")
        await send_some()
        await until(lambda: len(ledger.values) >= sent, what="all records")
    assert ledger.values == list(range(sent))
    for taken in ledger.taken.values():
        assert taken == sorted(taken, key=int)


async def test_only_committed_records_are_taken_and_markers_are_bridged(broker_address: str) -> None:
    """What a transaction has taken back is not counted, and the gap that it leaves holds nobody up."""
    topic, ledger = await created_topic(broker_address, "transactions", partitions=PARTITIONS), Ledger()
    producer = AIOKafkaProducer(bootstrap_servers=broker_address, transactional_id=unique("transaction"))
    await producer.start()
    async with reading(broker_address, topic, ledger, group=unique("group")):
        for number in range(6):
            await producer.begin_transaction()
            await producer.send_and_wait(topic.name, str(number).encode(), partition=0)
            await (producer.abort_transaction() if number in {1, 2} else producer.commit_transaction())
            await until(lambda n=number: n in {*ledger.values, 1, 2}, what="a committed record")  # type: ignore[misc]
    await producer.stop()
    assert ledger.values == [0, 3, 4, 5]
    assert [span for span in ledger.spans if span[0] == 0] == [(0, 0, 1), (0, 1, 7), (0, 7, 9), (0, 9, 11)]


async def test_the_group_s_offsets_show_where_it_reads_and_decide_nothing(broker_address: str) -> None:
    """A committed offset that is wrong moves no reader; tools that show lag see the positions."""
    topic, group, ledger = (
        await created_topic(broker_address, "offsets", partitions=PARTITIONS),
        unique("group"),
        Ledger(),
    )
    places = [TopicPartition(topic.name, number) for number in range(PARTITIONS)]
    await send(broker_address, topic, *(str(number).encode() for number in range(40)))
    wrong = AIOKafkaConsumer(bootstrap_servers=broker_address, group_id=group, enable_auto_commit=False)
    await wrong.start()
    wrong.assign(places)
    await wrong.commit(dict.fromkeys(places, 1_000))
    await wrong.stop()
    async with reading(broker_address, topic, ledger, group=group):
        await until(lambda: len(ledger.values) == 40, what="all records")
        expected = {(topic.name, number): offset for number, offset in ledger.next.items()}
        async with asyncio.timeout(WAIT_SECONDS):
            while await group_positions(broker_address, group) != expected:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)
    assert ledger.values == list(range(40))


async def test_only_a_reader_s_records_are_light(broker_address: str) -> None:
    """A reader has what a batch needs of each record; other consumers of the process get whole records."""
    topic, ledger = await created_topic(broker_address, "light", partitions=PARTITIONS), Ledger()
    async with producing(broker_address) as producer, reading(broker_address, topic, ledger, group=unique("group")):
        await producer.publish(topic.name, b"key", b"1", headers={"name": "text"})
        await until(lambda: ledger.values, what="the record")
    [record] = [record for record in await records_on(broker_address, topic) if record.value == b"1"]
    assert (record.topic, record.key, record.headers) == (topic.name, b"key", {"name": "text"})
    [light] = ledger.records
    assert (light.key, light.value, list(light.headers)) == (b"key", b"1", [("name", b"text")])
    assert light.timestamp == round(record.timestamp.timestamp() * 1000)
    assert not hasattr(light, "topic")
