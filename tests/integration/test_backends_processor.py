"""The loop of plain consumers on a real broker: order, commits, retries, dead letters, bugs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
import sqlalchemy as sa

from backends.broker.interface import Handler, Record
from backends.broker.kafka import create_topics
from backends.broker.positions import group_positions
from backends.broker.processor import Processor
from backends.dead_letters import DeadLetterTopic
from backends.telemetry.metrics import METRICS, REGISTRY
from deployer.consumer import ReplicaStatusConsumer
from schemas.codec import encode
from schemas.errors import InvalidMessageError, RetryLaterError
from schemas.messages.deployment import ReplicaStatus
from schemas.tables import replicas
from schemas.topics import DEAD_LETTERS, Topic
from schemas.vocabulary import Service
from tests.integration.backends_topics import consuming, created_topic, database_of, producing, records_on, send
from tests.services import unique

WAIT_SECONDS = 20


class Handled:
    """A handler that writes down what it sees, and does with each value what the test says."""

    def __init__(self, **outcomes: list[Exception]) -> None:
        self.seen: list[str] = []
        self._outcomes = outcomes
        self._changed = asyncio.Event()

    async def __call__(self, record: Record) -> None:
        """See one record; raise the next of the errors that stand for its value."""
        value = record.value.decode()
        self.seen.append(value)
        self._changed.set()
        errors = self._outcomes.get(value, [])
        if errors:
            raise errors.pop(0)

    async def until(self, holds: Callable[[list[str]], bool]) -> None:
        """Return when what was seen is as asked."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds(self.seen):
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def processing(brokers: str, topic: Topic, group: str | None, handler: Handler) -> AsyncIterator[Processor]:
    """Give a processor that runs on the real dead-letter topic until the block ends."""
    await create_topics(brokers, wide_partitions=1, topics=[DEAD_LETTERS])
    async with consuming(brokers, [topic], group=group) as consumer, producing(brokers) as producer:
        processor = Processor(consumer, handler, DeadLetterTopic(producer), name=group or "alone")
        life = asyncio.create_task(processor.run())
        try:
            yield processor
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)


async def letters_from(brokers: str, topic: Topic) -> list[Record]:
    """Return the dead letters of one topic."""
    return [
        record for record in await records_on(brokers, DEAD_LETTERS) if record.headers["source_topic"] == topic.name
    ]


async def caught_up(processor: Processor) -> None:
    """Return when the processor has read its partitions to their ends."""
    async with asyncio.timeout(WAIT_SECONDS):
        await processor.caught_up.wait()


async def test_records_are_handled_in_order_and_once(broker_address: str) -> None:
    """Records are handled in order, and not again after a restart."""
    topic, group, handled = await created_topic(broker_address, "orderly"), unique("group"), Handled()
    values = [str(number) for number in range(100)]
    await send(broker_address, topic, *(value.encode() for value in values))
    async with processing(broker_address, topic, group, handled) as processor:
        await caught_up(processor)
    async with processing(broker_address, topic, group, handled) as processor:
        await caught_up(processor)
    assert handled.seen == values
    labels = {"group": group, "topic": topic.name, "partition": "0"}
    assert REGISTRY.get_sample_value("fincoach_consumer_position_offset", labels) == 100
    assert REGISTRY.get_sample_value("fincoach_consumer_lag_records", labels) == 0


async def test_a_record_whose_time_has_not_come_is_tried_again_before_the_next(broker_address: str) -> None:
    """A record that must be retried later is retried before the next one."""
    topic, group = await created_topic(broker_address, "retried"), unique("group")
    handled = Handled(b=[RetryLaterError("away"), RetryLaterError("still away")])
    await send(broker_address, topic, b"a", b"b", b"c")
    async with processing(broker_address, topic, group, handled) as processor:
        await handled.until(lambda seen: seen.count("b") == 1)
        assert await group_positions(broker_address, group) == {(topic.name, 0): 1}  # b is not committed
        await handled.until(lambda seen: "c" in seen)
        await caught_up(processor)
    assert handled.seen == ["a", "b", "b", "b", "c"]
    assert await group_positions(broker_address, group) == {(topic.name, 0): 3}
    assert METRICS.messages_handled.labels(group=group, outcome="retried")._value.get() == 2


async def test_every_partition_of_a_batch_that_fails_goes_on_where_it_stood(broker_address: str) -> None:
    """After a failure, every partition of the fetch continues where it was."""
    topic = await created_topic(broker_address, "partitions", partitions=3)
    outcomes: dict[str, list[Exception]] = {"4": [RetryLaterError("away")]}
    handled = Handled(**outcomes)
    async with producing(broker_address) as producer:
        await producer.publish_batch(
            [(topic.name, str(number).encode(), str(number).encode(), {}) for number in range(12)]
        )
    async with processing(broker_address, topic, unique("group"), handled) as processor:
        await caught_up(processor)
    assert sorted(set(handled.seen), key=int) == [str(number) for number in range(12)]
    assert handled.seen.count("4") == 2


async def test_a_process_that_dies_in_the_middle_leaves_the_record_to_the_next(broker_address: str) -> None:
    """The record that a dying process handles is handled by its successor."""
    topic, group = await created_topic(broker_address, "killed"), unique("group")
    await send(broker_address, topic, b"a", b"b")
    reached = asyncio.Event()

    async def hangs(record: Record) -> None:
        if record.value == b"b":
            reached.set()
            await asyncio.Event().wait()

    async with processing(broker_address, topic, group, hangs), asyncio.timeout(WAIT_SECONDS):
        await reached.wait()
    handled = Handled()
    async with processing(broker_address, topic, group, handled) as processor:
        await caught_up(processor)
    assert handled.seen == ["b"]


async def test_what_is_invalid_is_put_aside_and_the_rest_flows(broker_address: str) -> None:
    """An invalid message becomes a dead letter, and those behind it are handled."""
    topic, group = await created_topic(broker_address, "poisoned"), unique("group")
    handled = Handled(b=[InvalidMessageError("missing_field", "no user_id")])
    await send(broker_address, topic, b"a", b"b", b"c")
    async with processing(broker_address, topic, group, handled) as processor:
        await caught_up(processor)
    [letter] = await letters_from(broker_address, topic)
    assert handled.seen == ["a", "b", "c"]
    assert await group_positions(broker_address, group) == {(topic.name, 0): 3}
    assert (letter.key, letter.value) == (topic.name.encode(), b"b")
    assert letter.headers["reason"] == "missing_field"
    assert letter.headers["detail"] == "no user_id"
    assert (letter.headers["source_partition"], letter.headers["source_offset"]) == ("0", "1")


async def test_what_cannot_be_put_aside_yet_is_not_committed(broker_address: str) -> None:
    """An invalid message is not committed until its dead letter is durable."""
    topic, group = await created_topic(broker_address, "unlettered"), unique("group")
    invalid = InvalidMessageError("not_json", "no JSON")
    handled = Handled(a=[invalid, invalid])
    await send(broker_address, topic, b"a")
    outcomes: list[Exception | None] = [RetryLaterError("the broker is away"), None]
    kept: list[tuple[int, str]] = []

    async def sink(record: Record, reason: str, _: str) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error
        kept.append((record.offset, reason))

    async with consuming(broker_address, [topic], group=group) as consumer:
        life = asyncio.create_task(Processor(consumer, handled, sink, name=group).run())
        await handled.until(lambda seen: len(seen) == 2)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
    assert kept == [(0, "not_json")]


async def test_a_bug_stops_the_process_and_commits_nothing(broker_address: str) -> None:
    """A bug stops the process, and nothing is committed."""
    topic, group = await created_topic(broker_address, "buggy"), unique("group")
    handled = Handled(b=[ZeroDivisionError("a bug")])
    await send(broker_address, topic, b"a", b"b", b"c")
    async with consuming(broker_address, [topic], group=group) as consumer, producing(broker_address) as producer:
        processor = Processor(consumer, handled, DeadLetterTopic(producer), name=group)
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await processor.run()
    assert handled.seen == ["a", "b"]
    assert await group_positions(broker_address, group) == {(topic.name, 0): 1}


async def test_a_reader_without_a_group_retries_too_and_says_when_it_has_caught_up(broker_address: str) -> None:
    """A reader without a group retries too, and reports when it has caught up."""
    topic = await created_topic(broker_address, "alone")
    handled = Handled(b=[RetryLaterError("away")])
    await send(broker_address, topic, b"a", b"b")
    async with processing(broker_address, topic, None, handled) as processor:
        assert not processor.caught_up.is_set()
        await caught_up(processor)
        assert handled.seen == ["a", "b", "b"]
        await send(broker_address, topic, b"c")
        await handled.until(lambda seen: seen[-1] == "c")


async def test_a_member_of_a_group_without_a_partition_is_ready_to_step_in(broker_address: str) -> None:
    """A group member without a partition counts as caught up."""
    topic, group = await created_topic(broker_address, "standby"), unique("group")
    first, second = Handled(), Handled()
    await send(broker_address, topic, b"a")
    async with (
        processing(broker_address, topic, group, first) as reader,
        processing(broker_address, topic, group, second) as standby,
    ):
        await caught_up(reader)
        await caught_up(standby)
    assert "a" in {*first.seen, *second.seen}


async def test_what_the_database_refuses_is_put_aside_and_the_rest_flows(
    broker_address: str, database_url: str
) -> None:
    """A message that the database refuses becomes a dead letter, and those behind it are handled."""
    topic, group = await created_topic(broker_address, "unholdable"), unique("group")
    now = dt.datetime(2026, 3, 4, tzinfo=dt.UTC)
    statuses = [
        encode(ReplicaStatus(event_id=uuid4(), occurred_at=now, replica_id=name, url="u", started_at=now, models={}, swaps=0))
        for name in ("first", "r" * 150, "last")
    ]  # fmt: skip
    await send(broker_address, topic, *statuses)
    async with database_of(Service.DEPLOYER, database_url) as database:
        async with processing(broker_address, topic, group, ReplicaStatusConsumer(database).handle) as processor:
            await caught_up(processor)
        async with database.reading() as connection:
            known = set((await connection.execute(sa.select(replicas.c.replica_id))).scalars())
    [letter] = await letters_from(broker_address, topic)
    assert known == {"first", "last"}
    assert await group_positions(broker_address, group) == {(topic.name, 0): 3}
    assert (letter.value, letter.headers["reason"]) == (statuses[1], "invalid_field")
    assert "the database cannot hold it" in letter.headers["detail"]
