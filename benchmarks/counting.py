"""Decodes and counts a topic without a database, in its own process: with our transport, or with aiokafka alone.

``python -m benchmarks.counting ours|aiokafka BROKERS TOPIC RECORDS NAME`` prints as JSON how many records it decoded after
the first batch and how many seconds that took, and exits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import faust
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP
from yarl import URL

from fincoach_events.events import decode_event
from streams.reading.transport import BatchConsumer, BatchSchema, LedgerApp
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
        # Write to the descriptor and exit at once: Faust turns printed lines into log lines, and takes seconds to shut down.
        os.write(1, msgspec.json.encode(report) + b"\n")
        os._exit(0)


class FromTheBeginning:
    """Positions every partition at its beginning, because there is no ledger here."""

    def __init__(self, topic: str) -> None:
        self.topics = frozenset({topic})

    async def place(self, consumer: BatchConsumer, partitions: set[TP]) -> None:
        """Seek to the beginning."""
        await consumer.seek_wait(dict.fromkeys(partitions, 0))

    def take_over(self, partitions: set[TP]) -> None:
        """Take them."""

    def forget(self, partitions: Iterable[TP]) -> None:
        """Forget them."""


def ours(brokers: str, topic: str, *, count: Count, name: str) -> None:
    """Count with our transport under Faust."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = LedgerApp(
        name,
        broker=[URL(f"kafka://{brokers}")],
        autodiscover=False,
        store="memory://",
        web_enabled=False,
        topic_partitions=PARTITIONS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_max_poll_records=BATCH_RECORDS,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=2,
        stream_wait_empty=True,
    )
    app.places = FromTheBeginning(topic)

    async def take(stream: Any) -> None:  # noqa: ANN401 - a Faust stream
        async for records in stream:
            count.take([record.value for record in records])

    app.agent(app.topic(topic, schema=BatchSchema(), partitions=PARTITIONS), name="count")(take)
    faust.Worker(app, loglevel="WARN", loop=loop).execute_from_commandline()


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
    sys.argv[1:] = []  # Faust reads them too
    count = Count(int(records))
    if side == "ours":
        ours(brokers, topic, count=count, name=name)
    else:
        asyncio.run(aiokafka(brokers, topic, count=count))


if __name__ == "__main__":
    main()
