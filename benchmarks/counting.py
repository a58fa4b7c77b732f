"""Decoding and counting a topic without a database, in a process of its own: our reader, or aiokafka alone.

``python -m benchmarks.counting ours|aiokafka BROKERS TOPIC RECORDS NAME`` prints as JSON how many records it decoded after
the first batch and how many seconds that took, and exits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from backends.broker.partitions import PartitionReader
from fincoach_events.events import decode_event
from streams.settings import StreamsSettings

PARTITIONS = 4
BATCH_RECORDS = int(StreamsSettings.model_fields["batch_records"].default)  # the worker's own


class Count:
    """Decodes batches, counts the event types, and ends the process after ``records`` records."""

    def __init__(self, records: int) -> None:
        self.types: Counter[str] = Counter()
        self._records = records
        self._seen = 0
        self._first = 0
        self._started = 0.0

    def take(self, values: Sequence[bytes]) -> None:
        """Decode and count a batch; the first one starts the clock."""
        self.types.update(str(type(decode_event(value)).__struct_config__.tag) for value in values)
        self._seen += len(values)
        if not self._first:
            self._first, self._started = self._seen, time.perf_counter()
        elif self._seen >= self._records:
            self._report(time.perf_counter() - self._started)

    def _report(self, seconds: float) -> None:
        assert self.types.total() == self._records
        report = {"events": self._seen - self._first, "seconds": seconds}
        os.write(1, msgspec.json.encode(report) + b"\n")
        os._exit(0)  # nothing is to be stopped in order


class FromTheBeginning:
    """Counts what each partition holds from its beginning on: there is no ledger here."""

    def __init__(self, count: Count) -> None:
        self._count = count

    async def next_offset(self, _topic: str, _partition: int) -> int:
        """Begin at the beginning."""
        return 0

    async def take(self, _topic: str, _partition: int, records: Sequence[Any], *, from_offset: int) -> int:
        """Count ``records``."""
        self._count.take([record.value for record in records])
        return from_offset + len(records)

    def forget(self, topic: str, partition: int) -> None:
        """Nothing is cached."""


async def ours(brokers: str, topic: str, *, count: Count, name: str) -> None:
    """Count with our reader."""
    work = FromTheBeginning(count)
    reader = PartitionReader(brokers, [topic], work, group=name, session_seconds=10, most_records=BATCH_RECORDS)
    await reader.run()


async def aiokafka(brokers: str, topic: str, *, count: Count) -> None:
    """Count with a bare consumer."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=BATCH_RECORDS,
    )
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    while True:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            count.take([record.value for record in records])


def main() -> None:
    """Count until the end."""
    side, brokers, topic, records, name = sys.argv[1:]
    count = Count(int(records))
    counting = ours(brokers, topic, count=count, name=name) if side == "ours" else aiokafka(brokers, topic, count=count)
    asyncio.run(counting)


if __name__ == "__main__":
    main()
