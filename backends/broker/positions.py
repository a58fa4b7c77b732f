"""How far groups have read and where partitions end, according to the broker and not to the processes under judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.errors import RetryLaterError
from schemas.topics import Topic

Position = tuple[str, int]  # topic, partition
FIRST_RECORD_SECONDS = 10.0


async def end_offsets(brokers: str, topics: Iterable[Topic], *, wide_partitions: int) -> dict[Position, int]:
    """Return the end offset of each partition of ``topics``.

    Raises:
        RetryLaterError: when the broker is away.
    """
    partitions = [
        TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions(wide_partitions))
    ]
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, request_timeout_ms=5_000)
    try:
        await consumer.start()
        ends = await consumer.end_offsets(partitions)
    except (KafkaError, OSError) as error:
        raise RetryLaterError(repr(error)) from error
    finally:
        await consumer.stop()
    return {(partition.topic, partition.partition): end for partition, end in ends.items()}


async def first_offset(brokers: str, topic: str, partition: int, *, from_offset: int) -> int:
    """Return the offset of the first record at or behind ``from_offset``; call it where there is one.

    A separate consumer without a group asks, so no rebalance and no other reader can lose the answer. Records of aborted
    transactions do not count.

    Raises:
        RetryLaterError: when the broker is away, or nothing came within the time limit.
    """
    place = TopicPartition(topic, partition)
    # From the earliest: if retention has deleted the offset, the broker reports it as out of range.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers,
        request_timeout_ms=5_000,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    try:
        async with asyncio.timeout(FIRST_RECORD_SECONDS):
            await consumer.start()
            consumer.assign([place])
            consumer.seek(place, from_offset)
            record = await consumer.getone(place)
    except (KafkaError, OSError) as error:  # a time limit that was reached is an OSError
        raise RetryLaterError(repr(error)) from error
    finally:
        await consumer.stop()
    return int(record.offset)


async def group_positions(brokers: str, group: str) -> dict[Position, int]:
    """Return the committed offset of each partition that ``group`` has read.

    Raises:
        RetryLaterError: when the broker is away.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, request_timeout_ms=5_000)
    try:
        await admin.start()
        committed = await admin.list_consumer_group_offsets(group)
    except (KafkaError, OSError) as error:
        raise RetryLaterError(repr(error)) from error
    finally:
        await admin.close()
    return {(partition.topic, partition.partition): place.offset for partition, place in committed.items()}
