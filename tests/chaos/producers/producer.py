"""One producer in its own process: ``python -m tests.chaos.producers.producer ORDER``, where ORDER is JSON (see :class:`Order`).

Half of the producers use the product's client. The others send raw bytes through a plain Kafka client, like a host
without our client; one of these is not idempotent, so its retries arrive twice. SIGTERM stops a producer cleanly.
"""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from backends.clock import Clock, SystemClock
from fincoach_events import EventProducer, OutgoingEvent, ProducerBusyError
from fincoach_events.events import BEHAVIORAL_EVENTS_TOPIC
from tests.chaos.producers.journal import ProducerJournal, last_events
from tests.chaos.producers.mix import CLIENT_MIX, RAW_MIX, Drawn, Mix
from tests.chaos.producers.population import Population

TICK_SECONDS = 0.05
MOST_UNANSWERED = 4_000
FLUSH_SECONDS = 60.0
FOREIGN_EVERY_SECONDS = 5.0
LARGEST_REQUEST_BYTES = 3 * 1024 * 1024


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The instructions for a producer.

    Attributes:
        name: unique among the producers and their restarts; names the journal.
        client: ``product``, ``raw``, or ``raw_at_least_once``.
        event_time: the event time when the wall clock shows ``wall_time``, both in unix seconds.
        days_per_second: the speed of event time, which never passes the wall clock.
    """

    name: str
    client: str
    brokers: str
    folder: str
    seed: int
    users: int
    events_per_second: float
    wall_time: float
    event_time: float
    days_per_second: float


class Sender(Protocol):
    """A client of one kind; it records its sends in the journal."""

    async def start(self) -> None:
        """Connect."""

    async def send(self, drawn: Drawn) -> None:
        """Journal and send one record."""

    async def stop(self) -> None:
        """Wait a limited time for the sends in flight."""

    @property
    def unanswered(self) -> int:
        """Return how many sends are neither acknowledged nor given up."""


class ProductSender:
    """The product's own client, ``fincoach_events.EventProducer``."""

    def __init__(self, order: Order, journal: ProducerJournal) -> None:
        self._journal = journal
        self._numbers: dict[bytes, collections.deque[int]] = collections.defaultdict(collections.deque)
        self._producer = EventProducer(
            order.brokers, consent_default=False, source="chaos", on_acknowledged=self._acknowledged, on_undelivered=self._undelivered,
        )  # fmt: skip

    async def start(self) -> None:
        """Begin delivering."""
        await self._producer.start()

    async def send(self, drawn: Drawn) -> None:
        """Journal and send one record."""
        value = drawn.value or b""
        number = self._journal.sending(drawn.kind, drawn.value, valid=drawn.valid)
        self._numbers[value].append(number)
        try:
            if drawn.event is not None:
                await self._producer.send(drawn.event)
            else:
                await self._producer.send_bytes(value, key=drawn.key)
        except ProducerBusyError:
            self._numbers[value].remove(number)
            self._journal.unsent(number, "busy")

    async def stop(self) -> None:
        """Deliver the waiting events."""
        await self._producer.close(FLUSH_SECONDS)

    @property
    def unanswered(self) -> int:
        """Return how many events wait for the broker."""
        return self._producer.pending

    def _acknowledged(self, outgoing: OutgoingEvent, partition: int, offset: int) -> None:
        number = self._number_of(outgoing.value)
        self._journal.acknowledged(number, topic=BEHAVIORAL_EVENTS_TOPIC, partition=partition, offset=offset)

    def _undelivered(self, outgoing: OutgoingEvent, reason: str) -> None:
        self._journal.unsent(self._number_of(outgoing.value), reason)

    def _number_of(self, value: bytes) -> int:
        """Return the oldest open number for these bytes: equal records go to one partition and are answered in order.

        Raises:
            KeyError: the client sent bytes that it was not given.
        """
        numbers = self._numbers[value]
        if not numbers:
            raise KeyError(value)
        number = numbers.popleft()
        if not numbers:
            del self._numbers[value]
        return number


class RawSender:
    """A plain Kafka client. Unless it is ``idempotent``, its retries may arrive twice and out of order."""

    def __init__(self, order: Order, journal: ProducerJournal, *, idempotent: bool) -> None:
        self._order = order
        self._journal = journal
        self._idempotent = idempotent
        self._producer: AIOKafkaProducer | None = None
        self._open: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Connect; retry while no broker answers."""
        while self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._order.brokers, client_id=self._order.name, acks="all", enable_idempotence=self._idempotent,
                max_request_size=LARGEST_REQUEST_BYTES, request_timeout_ms=15_000, linger_ms=10, compression_type="gzip",
            )  # fmt: skip
            try:
                await producer.start()
                self._producer = producer
            except (KafkaError, OSError):
                await producer.stop()
                await asyncio.sleep(0.5)

    async def send(self, drawn: Drawn) -> None:
        """Journal and send one record; replace the client if it failed for good."""
        number = self._journal.sending(drawn.kind, drawn.value, valid=drawn.valid)
        if self._producer is None:
            await self.start()
        assert self._producer is not None
        try:
            future = await self._producer.send(BEHAVIORAL_EVENTS_TOPIC, value=drawn.value, key=drawn.key)
        except KafkaError as error:
            self._journal.unsent(number, repr(error))
            await self._start_over()
            return
        self._open.add(future)
        future.add_done_callback(lambda done: self._answered(number, done))

    async def stop(self) -> None:
        """Wait for the sends in flight."""
        if self._open:
            await asyncio.wait(set(self._open), timeout=FLUSH_SECONDS)
        if self._producer is not None:
            await asyncio.wait([asyncio.ensure_future(self._producer.stop())], timeout=5.0)

    @property
    def unanswered(self) -> int:
        """Return how many sends have no answer yet."""
        return len(self._open)

    def _answered(self, number: int, done: asyncio.Future[Any]) -> None:
        self._open.discard(done)
        if done.cancelled():
            self._journal.unsent(number, "cancelled")
        elif (error := done.exception()) is not None:
            self._journal.unsent(number, repr(error))
        else:
            place = done.result()
            self._journal.acknowledged(number, topic=place.topic, partition=place.partition, offset=place.offset)

    async def _start_over(self) -> None:
        broken, self._producer = self._producer, None
        if broken is not None:
            await asyncio.wait([asyncio.ensure_future(broken.stop())], timeout=2.0)


class Production:
    """Draws and sends records at a steady rate until stopped; holds back while too many are unanswered."""

    def __init__(self, order: Order, clock: Clock) -> None:
        self._order = order
        self._clock = clock
        self._journal = ProducerJournal(Path(order.folder) / f"{order.name}.jsonl", clock)
        generator = np.random.default_rng([order.seed, *order.name.encode()])
        population = Population(generator, name=f"{order.seed}:{order.name}", users=order.users, now=self._event_time)
        product = order.client == "product"
        self._mix = Mix(generator, population, CLIENT_MIX if product else RAW_MIX, foreign=self._foreign)
        self._sender: Sender = (
            ProductSender(order, self._journal)
            if product
            else RawSender(order, self._journal, idempotent=order.client == "raw")
        )
        self._known: list[bytes] = []
        self._known_at = float("-inf")

    async def run(self, stopped: asyncio.Event) -> None:
        """Produce until ``stopped``, then deliver what is in flight."""
        await self._sender.start()
        began = time.monotonic()
        sent = 0
        while not stopped.is_set():
            due = int((time.monotonic() - began) * self._order.events_per_second)
            capacity = MOST_UNANSWERED - self._sender.unanswered
            for _ in range(min(due - sent, capacity)):
                await self._sender.send(self._mix.next())
            sent = due  # records that were held back are not made up for: the rate stays steady
            await asyncio.sleep(TICK_SECONDS)
        await self._sender.stop()
        self._journal.close()

    def _event_time(self) -> dt.datetime:
        now = self._clock.now()
        passed = (now.timestamp() - self._order.wall_time) * self._order.days_per_second * 86_400
        return min(now, dt.datetime.fromtimestamp(self._order.event_time + passed, dt.UTC))

    def _foreign(self) -> list[bytes]:
        """Return events that other producers sent recently."""
        if time.monotonic() - self._known_at > FOREIGN_EVERY_SECONDS:
            own = self._order.name.partition(".")[0]
            others = [
                path for path in sorted(Path(self._order.folder).glob("*.jsonl")) if not path.name.startswith(own)
            ]
            self._known = [raw for path in others for raw in last_events(path)[-100:]]
            self._known_at = time.monotonic()
        return self._known


@contextmanager
def stopping(event: asyncio.Event) -> Iterator[None]:
    """Set ``event`` at SIGTERM."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, event.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def main(text: str, clock_of: Callable[[], Clock] = SystemClock) -> None:
    """Run one producer."""
    order = msgspec.json.decode(text, type=Order)
    stopped = asyncio.Event()
    with stopping(stopped):
        await Production(order, clock_of()).run(stopped)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
