"""Delivers accepted events to the broker in the background: connects, packs batches, retries, gives up after a timeout.

No call of a host waits for this work. While the broker is away, events wait in the buffer; an event that has
waited for the delivery timeout is given up and reported.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.codec import has_lz4, has_snappy, has_zstd
from aiokafka.errors import (
    InvalidMessageError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from aiokafka.partitioner import murmur2

from fincoach_events.buffer import EventBuffer, Slot
from fincoach_events.events import BEHAVIORAL_EVENTS_TOPIC, MAX_EVENT_BYTES

Compression = Literal["gzip", "lz4", "zstd", "snappy"]

_CODEC_AVAILABLE: dict[str, Callable[[], bool]] = {
    "gzip": lambda: True,
    "lz4": has_lz4,
    "zstd": has_zstd,
    "snappy": has_snappy,
}
# The broker refuses these bytes however often they are sent.
_PERMANENT_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidMessageError)
_ROUND_BATCHES = 8  # batches per round: enough to feed every partition, few enough to stay fair
_LONGEST_BACKOFF_SECONDS = 2.0

_log = logging.getLogger("fincoach_events")


@dataclass(frozen=True, kw_only=True)
class ProducerSettings:
    """How a producer behaves; every default suits a web application.

    Attributes:
        topic: where the events go.
        max_block_seconds: the longest time that a call blocks its caller while the buffer is full.
        max_buffered_events: limit of events that are accepted and not yet acknowledged.
        max_buffered_bytes: the same limit in bytes of keys and values.
        linger_seconds: how long the first event waits for others before a batch is sent.
        batch_bytes: size at which a batch is sent at once (before compression).
        compression: zstd takes a fifteenth of gzip's time; lz4 and snappy need aiokafka's extra of the same name; None
            does not compress.
        request_timeout_seconds: longest wait for one answer of the broker.
        delivery_timeout_seconds: age at which an unacknowledged event is given up and reported.
        max_event_bytes: largest accepted size of an encoded event.
        security: further arguments of aiokafka's client, such as ``ssl_context`` or ``sasl_mechanism``.
    """

    topic: str = BEHAVIORAL_EVENTS_TOPIC
    max_block_seconds: float = 0.25
    max_buffered_events: int = 10_000
    max_buffered_bytes: int = 32 * MAX_EVENT_BYTES
    linger_seconds: float = 0.02
    batch_bytes: int = 256 * 1024
    compression: Compression | None = "zstd"
    request_timeout_seconds: float = 10.0
    delivery_timeout_seconds: float = 120.0
    max_event_bytes: int = MAX_EVENT_BYTES
    security: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ValueError: no event fits a limit, or the library of the compression is missing.
        """
        if self.max_buffered_events < 1 or self.max_buffered_bytes < self.max_event_bytes:
            raise ValueError("the buffer must have room for at least one event of max_event_bytes")
        if self.compression is not None and not _CODEC_AVAILABLE[self.compression]():
            raise ValueError(
                f"compression {self.compression} needs a library: pip install 'aiokafka[{self.compression}]', or use gzip"
            )


class DeliveryListener(Protocol):
    """Receives the outcome of each event; called on the event loop, once per event."""

    def acknowledged(self, slot: Slot, *, partition: int, offset: int) -> None:
        """The broker has the event; ``offset`` is -1 when a retry found it already stored."""
        ...

    def gave_up(self, slot: Slot, *, reason: str) -> None:
        """Delivery will not try the event again; it may still have arrived."""
        ...


class DeliveryService:
    """Sends the events of a buffer to the topic until it is stopped.

    Events of one key go to one partition (Kafka's own murmur2 rule) in the order of acceptance. The broker
    drops the repetitions of a retry (idempotent producer); across a reconnection an event may arrive twice, with
    the same identifier.
    """

    def __init__(
        self, bootstrap_servers: str, buffer: EventBuffer, *, settings: ProducerSettings, listener: DeliveryListener
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._buffer = buffer
        self._settings = settings
        self._listener = listener
        self._kafka: AIOKafkaProducer | None = None
        self._in_flight: dict[asyncio.Future[Any], list[Slot]] = {}
        self._failure: BaseException | None = None
        self._no_linger = asyncio.Event()
        self._no_linger_callers = 0
        self._backoff_seconds = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start delivering; returns at once, whether or not a broker answers."""
        self._tasks = [
            asyncio.create_task(self._deliver(), name="fincoach-events-delivery"),
            asyncio.create_task(self._give_up_old()),
        ]

    async def stop(self) -> None:
        """Stop delivering; give up every event that is not settled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._disconnect()
        for slot in self._buffer.unsettled():
            self._give_up(slot, "the producer was closed before the broker answered")

    @contextlib.contextmanager
    def without_lingering(self) -> Iterator[None]:
        """Send without lingering inside this block."""
        self._no_linger_callers += 1
        self._no_linger.set()
        try:
            yield
        finally:
            self._no_linger_callers -= 1
            if not self._no_linger_callers:
                self._no_linger.clear()

    async def _deliver(self) -> None:
        while True:
            await self._buffer.wait_for_work()
            await self._linger()
            try:
                await self._send_round()
            except KafkaTimeoutError:
                pass  # the last batch still waits for its answer; the events are back in the buffer
            except Exception as error:  # noqa: BLE001 - the edge of a background task: events must not wait for a dead task
                self._failure = error
            if self._failure is not None:
                await self._reconnect(self._failure)

    async def _linger(self) -> None:
        if self._buffer.queued_bytes < self._settings.batch_bytes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.linger_seconds):
                    await self._no_linger.wait()

    async def _send_round(self) -> None:
        """Hand the oldest waiting events to the client, in order per partition."""
        kafka = await self._connected()
        partitions = sorted(await kafka.partitions_for(self._settings.topic))
        groups: dict[int, list[Slot]] = collections.defaultdict(list)
        for slot in self._buffer.take(max_bytes=_ROUND_BATCHES * self._settings.batch_bytes):
            groups[partitions[_hash(slot) % len(partitions)]].append(slot)
        results = await asyncio.gather(
            *(self._send(kafka, partition, slots) for partition, slots in groups.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send(self, kafka: AIOKafkaProducer, partition: int, slots: list[Slot]) -> None:
        start = 0
        try:
            while start < len(slots):
                batch, end = _packed(kafka, slots, start)
                answer = await kafka.send_batch(batch, self._settings.topic, partition=partition)
                self._in_flight[answer] = slots[start:end]
                answer.add_done_callback(self._finish)
                start = end
        finally:
            if start < len(slots):
                self._buffer.put_back(slots[start:])

    def _finish(self, answer: asyncio.Future[Any]) -> None:
        """Settle an acknowledged batch, give up a refused one, or return its events to the buffer."""
        slots = self._in_flight.pop(answer, [])
        error = answer.exception()
        if error is None:
            self._backoff_seconds = 0.0
            self._acknowledge(slots, answer.result())
        elif isinstance(error, _PERMANENT_ERRORS):
            for slot in slots:
                self._give_up(slot, f"the broker refused it: {error!r}")
        else:
            self._failure = error
            self._buffer.put_back(slots)

    def _acknowledge(self, slots: list[Slot], metadata: Any) -> None:  # noqa: ANN401 - aiokafka ships no types
        for index, slot in enumerate(slots):
            if self._buffer.settle(slot):
                offset = metadata.offset + index if metadata.offset >= 0 else -1
                self._listener.acknowledged(slot, partition=metadata.partition, offset=offset)

    def _give_up(self, slot: Slot, reason: str) -> None:
        if self._buffer.settle(slot):
            self._listener.gave_up(slot, reason=reason)

    async def _give_up_old(self) -> None:
        timeout_seconds = self._settings.delivery_timeout_seconds
        while True:
            await asyncio.sleep(min(1.0, timeout_seconds / 4))
            oldest_allowed = time.monotonic() - timeout_seconds
            for slot in self._buffer.unsettled():
                if slot.accepted_at > oldest_allowed:
                    break
                self._give_up(slot, f"no broker acknowledged it within {timeout_seconds} s")

    async def _connected(self) -> AIOKafkaProducer:
        if self._kafka is None:
            kafka = _new_client(self._bootstrap_servers, self._settings)
            try:
                async with asyncio.timeout(self._settings.request_timeout_seconds):
                    await kafka.start()
            except BaseException:
                await kafka.stop()
                raise
            self._kafka = kafka
        return self._kafka

    async def _reconnect(self, error: BaseException) -> None:
        """Connect again: after a refused batch, the client's sequence numbers no longer match the broker's."""
        expected = isinstance(error, KafkaError | OSError)
        _log.warning(
            "delivery_interrupted error=%r waiting=%d", error, len(self._buffer), exc_info=None if expected else error
        )
        await self._disconnect()
        self._backoff_seconds = min(max(0.1, 2 * self._backoff_seconds), _LONGEST_BACKOFF_SECONDS)
        await asyncio.sleep(self._backoff_seconds)

    async def _disconnect(self) -> None:
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            await _close(kafka, timeout_seconds=self._settings.request_timeout_seconds)
            unanswered, self._in_flight = self._in_flight, {}
            for slots in unanswered.values():
                self._buffer.put_back(slots)
        self._failure = None


def _new_client(bootstrap_servers: str, settings: ProducerSettings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        client_id="fincoach-events",
        enable_idempotence=True,
        compression_type=settings.compression,
        max_batch_size=settings.batch_bytes,
        max_request_size=max(2 * settings.max_event_bytes, settings.batch_bytes),
        request_timeout_ms=int(settings.request_timeout_seconds * 1000),
        linger_ms=0,  # the delivery service lingers itself, for the whole buffer
        **settings.security,
    )


async def _close(kafka: AIOKafkaProducer, *, timeout_seconds: float) -> None:
    """Close the client without waiting for the broker; its own stop() waits for a broker that may never come back.

    First stop its sender, so that nothing is in flight. Then clear its pending batches, which the delivery service
    holds too. Then stop() has nothing to wait for. aiokafka 0.14 has no public call for this.
    """
    await _bounded(kafka._sender.close(), timeout_seconds)  # noqa: SLF001 - see above
    kafka._message_accumulator._batches.clear()  # noqa: SLF001 - see above
    await _bounded(kafka.stop(), timeout_seconds)


async def _bounded(call: Coroutine[Any, Any, None], timeout_seconds: float) -> None:
    """Run a closing step for a limited time and ignore its outcome: the client is discarded."""
    task = asyncio.create_task(call)
    await asyncio.wait([task], timeout=timeout_seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _packed(kafka: AIOKafkaProducer, slots: list[Slot], start: int) -> tuple[Any, int]:
    """Return a full batch that begins with ``slots[start]``, and the index after its last event.

    The batch carries the client's time. Topics show the broker's time (LogAppendTime), and an event's
    ``occurred_at`` must never decide about retention.
    """
    batch = kafka.create_batch()
    end = start
    while (
        end < len(slots)
        and batch.append(timestamp=None, key=slots[end].outgoing.key, value=slots[end].outgoing.value) is not None
    ):
        end += 1
    batch.close()
    return batch, end


def _hash(slot: Slot) -> int:
    """Return the number that chooses the partition: the key's hash, or the sequence of an event without a key."""
    return slot.sequence if slot.outgoing.key is None else _key_hash(slot.outgoing.key)


@functools.lru_cache(maxsize=65_536)
def _key_hash(key: bytes) -> int:
    """Return Kafka's hash of a key. It is cached: in pure Python it is the most expensive step of a send."""
    return int(murmur2(key)) & 0x7FFFFFFF
