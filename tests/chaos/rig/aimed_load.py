"""The load of an aimed run: the chaos runner's world and mix, sent by one plain Kafka client with its journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from backends.clock import SystemClock
from schemas.dead_letters import ATTEMPT_HEADER, RETRY_OF_HEADER
from schemas.topics import BEHAVIORAL_EVENTS
from tests.chaos.producers.journal import ProducerJournal
from tests.chaos.producers.mix import RAW_MIX, Drawn, Mix
from tests.chaos.producers.world import World

Headers = Sequence[tuple[str, bytes]]
USERS = 60
# Of a dead letter that nobody knows: whoever takes the record in looks for it and finds nothing to settle.
RETRIED: Headers = ((RETRY_OF_HEADER, b"999999"), (ATTEMPT_HEADER, b"1"))
RETRIED_EVERY = 25
LARGEST_REQUEST_BYTES = 3 * 1024 * 1024


class Load:
    """A producer with its journal: a plain Kafka client, as a host without ours would be."""

    def __init__(self, brokers: str, folder: Path, *, seed: int, wide_partitions: int) -> None:
        self._brokers = brokers
        self._wide_partitions = wide_partitions
        self._journal = ProducerJournal(folder / "producers" / "load.jsonl", SystemClock())
        generator = np.random.default_rng(seed)
        world = World(generator, name=f"yard:{seed}", users=USERS, now=SystemClock().now)
        self._mix = Mix(generator, world, RAW_MIX)
        self._producer: AIOKafkaProducer | None = None
        self._looker: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers, acks="all", enable_idempotence=True, linger_ms=5, max_request_size=LARGEST_REQUEST_BYTES,
        )  # fmt: skip
        await self._producer.start()

    async def send(self, records: int) -> None:
        """Send so many records of the mix, and wait until the broker has them; some say that they are sent again."""
        drawn = [self._mix.next() for _ in range(records)]
        await self._send(drawn, headers=lambda number: RETRIED if number % RETRIED_EVERY == 0 else ())

    async def send_nothing(self, records: int) -> None:
        """Send so many records without value, one after the other: more than a producer may."""
        await self._send([Drawn("no_value", valid=False, key=b"tombstone", value=None)] * records)

    async def _send(self, records: Sequence[Drawn], *, headers: Callable[[int], Headers] = lambda _: ()) -> None:
        assert self._producer is not None
        answers = []
        for drawn in records:
            number = self._journal.sending(drawn.kind, drawn.value, valid=drawn.valid)
            answer = await self._producer.send(
                BEHAVIORAL_EVENTS.name, value=drawn.value, key=drawn.key, headers=list(headers(number))
            )
            answers.append((number, answer))
        for number, answer in answers:
            place = await answer
            self._journal.acknowledged(number, topic=place.topic, partition=place.partition, offset=place.offset)

    async def end_of(self, topic: str) -> int:
        """Return how many records a topic with several partitions has."""
        if self._looker is None:
            self._looker = AIOKafkaConsumer(bootstrap_servers=self._brokers)
            await self._looker.start()
        places = [TopicPartition(topic, number) for number in range(self._wide_partitions)]
        return sum((await self._looker.end_offsets(places)).values())

    async def say(self, topic: str, key: bytes, value: bytes) -> None:
        """Put a message on another topic, as a process or a person would that is not part of the run."""
        assert self._producer is not None
        await self._producer.send_and_wait(topic, value=value, key=key)

    async def stop(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()
        if self._looker is not None:
            await self._looker.stop()
        self._journal.close()
