"""The load of an aimed run: the population and the mix of the chaos runs, sent by one plain Kafka client with a journal."""

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
from tests.chaos.producers.population import Population

Headers = Sequence[tuple[str, bytes]]
USERS = 60
# Headers that name an unknown dead letter: the worker looks for it and finds none to settle.
RETRIED: Headers = ((RETRY_OF_HEADER, b"999999"), (ATTEMPT_HEADER, b"1"))
RETRIED_EVERY = 25
LARGEST_REQUEST_BYTES = 3 * 1024 * 1024


class Load:
    """A plain Kafka client with a journal, like a host without our client."""

    def __init__(self, brokers: str, folder: Path, *, seed: int, wide_partitions: int) -> None:
        self._brokers = brokers
        self._wide_partitions = wide_partitions
        self._journal = ProducerJournal(folder / "producers" / "load.jsonl", SystemClock())
        generator = np.random.default_rng(seed)
        population = Population(generator, name=f"aimed:{seed}", users=USERS, now=SystemClock().now)
        self._mix = Mix(generator, population, RAW_MIX)
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers, acks="all", enable_idempotence=True, linger_ms=5, max_request_size=LARGEST_REQUEST_BYTES,
        )  # fmt: skip
        await self._producer.start()

    async def send(self, records: int) -> None:
        """Send ``records`` records of the mix and wait until the broker has them; some carry the headers of a retry."""
        drawn = [self._mix.next() for _ in range(records)]
        await self._send(drawn, headers=lambda number: RETRIED if number % RETRIED_EVERY == 0 else ())

    async def send_nothing(self, records: int) -> None:
        """Send ``records`` records without a value in a row: more than a producer is allowed."""
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
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers)
            await self._consumer.start()
        places = [TopicPartition(topic, number) for number in range(self._wide_partitions)]
        return sum((await self._consumer.end_offsets(places)).values())

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Put a message on another topic, like a process or a person outside the run."""
        assert self._producer is not None
        await self._producer.send_and_wait(topic, value=value, key=key)

    async def stop(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()
        if self._consumer is not None:
            await self._consumer.stop()
        self._journal.close()
