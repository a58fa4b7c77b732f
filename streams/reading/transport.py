"""Faust's Kafka transport, changed so that a ledger topic arrives as one item per partition and fetch.

The value of such an item is the list of fetched records; its offset is the last one. Other topics, changelogs
above all, go message by message as in stock. Reading starts where the ledger says, never at the committed offset:
the placing itself is handed in through :class:`LedgerPlaces`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, cast

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.utils.queues import ThrowableQueue

from backends.telemetry.logs import get_logger

if TYPE_CHECKING:
    from faust.types import AppT, EventT

log = get_logger("streams.reading.transport")
# A broker answers one request of a connection after the other: on an idle topic each seek would wait behind a fetch
# for stock's 1.5 s, and four partitions that lost their compare for 12 s.
LONGEST_FETCH_MILLISECONDS = 200
BROKER_AWAY_ERRORS: tuple[type[Exception], ...] = (KafkaError, OSError, TimeoutError)


class LedgerPlaces(Protocol):
    """Puts the partitions of ledger topics where the ledger says they stand."""

    topics: frozenset[str]

    async def place(self, consumer: BatchConsumer, partitions: set[TP]) -> None:
        """Seek ``partitions`` to the ledger and forget what is cached for them; never raises for an outage."""

    def take_over(self, partitions: set[TP]) -> None:
        """Know that ``partitions`` are this worker's now, and no others."""

    def forget(self, partitions: Iterable[TP]) -> None:
        """Take nothing more of ``partitions``, and drop what is cached for them."""


class _ReadOffsets(defaultdict[TP, int | None]):
    """Stock's note of what was read, without ledger partitions.

    Stock drops a message below that note. A fetch that is delivered while a seek goes back would set it above
    the place sought, and the batches in between would be dropped.
    """

    def __init__(self, ledger_topics: frozenset[str]) -> None:
        super().__init__(lambda: None)
        self._ledger_topics = ledger_topics

    def __getitem__(self, partition: TP) -> int | None:
        return None if partition.topic in self._ledger_topics else super().__getitem__(partition)


def _as_parsed(key: bytes | None) -> bytes | None:
    """Mark a consumer whose records of ledger topics stay as the parser made them: it is the consumer's key deserializer."""
    return key


class _LedgerRecords(fetcher.PartitionRecords):  # type: ignore[misc] # aiokafka ships no types
    """Stock's unpacking of a fetch, which leaves a marked consumer's records of ledger topics as the parser made them.

    Stock copies each into one with eleven fields, of which we read five: half of the fetching thread's time, and half of
    the memory of a batch that waits.
    """

    ledger_topics: frozenset[str] = frozenset()

    def _consumer_record(self, tp: TP, record: Any) -> Any:  # noqa: ANN401 - the parser's record
        if self._key_deserializer is _as_parsed and tp.topic in self.ledger_topics:
            return record
        return super()._consumer_record(tp, record)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Stock's thread, with shorter waits of the broker for something to fetch, and lighter records."""

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        _LedgerRecords.ledger_topics = cast("BatchConsumer", self.consumer).places.topics
        fetcher.PartitionRecords = _LedgerRecords  # aiokafka has no other way in
        consumer = super()._create_worker_consumer(transport)
        consumer._key_deserializer = _as_parsed  # noqa: SLF001 - other consumers of this process get whole records
        consumer._fetch_max_wait_ms = LONGEST_FETCH_MILLISECONDS  # noqa: SLF001 - stock has no setting for it
        return consumer


class BatchConsumer(driver.Consumer):
    """A consumer that yields whole fetches for the ledger topics of :class:`LedgerPlaces`."""

    places: LedgerPlaces

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - stock's own arguments
        super().__init__(*args, **kwargs)
        self.places = cast("LedgerApp", self.app).places
        self._read_offset = _ReadOffsets(self.places.topics)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 - stock's signature
        """Yield what was fetched; a ledger partition's records as one message."""
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self._seek_while_stopped()
            return
        generation = self.app.consumer_generation_id
        for found, items in records.items():
            partition = ensure_TP(found)
            for message in self._messages(partition, items):
                if self._was_interrupted(generation):
                    return
                if active is None or partition in active or partition in self._buffered_partitions:
                    self.app.monitor.track_tp_end_offset(partition, self.highwater(partition))
                    yield partition, message

    async def perform_seek(self) -> None:
        """Seek as stock does, then the ledger partitions to where the ledger says."""
        await super().perform_seek()
        await self.places.place(self, self.ledger_partitions())

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what is cached for the partitions, then do as stock does."""
        self.places.forget({partition for partition in revoked if partition.topic in self.places.topics})
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Do as stock does, and say which ledger partitions are ours."""
        await super().on_partitions_assigned(assigned, generation_id)
        self.places.take_over(self.ledger_partitions())

    def ledger_partitions(self) -> set[TP]:
        """Return the assigned partitions of ledger topics."""
        return {partition for partition in self.assignment() if partition.topic in self.places.topics}

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _was_interrupted(self, generation: int) -> bool:
        return not self.flow_active or generation != self.app.consumer_generation_id

    def _messages(self, partition: TP, items: list[Any]) -> Iterable[ConsumerMessage]:
        if partition.topic not in self.places.topics:
            return (self._to_message(partition, item) for item in items)
        return [self._batch(partition, items)] if items else []

    def _batch(self, partition: TP, items: list[Any]) -> ConsumerMessage:
        last = items[-1]
        return ConsumerMessage(
            partition.topic, partition.partition, last.offset, (last.timestamp or 0) / 1000.0, last.timestamp_type,
            None, None, cast("bytes", items), None, 0, 0, partition, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _seek_while_stopped(self) -> None:
        try:
            await self.perform_seek()
        except Exception as error:  # noqa: BLE001 - as stock: the next round seeks again
            log.warning("seek_delayed", error=repr(error))

    def _new_offset(self, tp: TP) -> int | None:
        """Commit what was acknowledged; for ledger topics only as a sign of life, nothing reads it."""
        if tp.topic not in self.places.topics:
            return super()._new_offset(tp)
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        following = max(acknowledged) + 1
        acknowledged.clear()
        self._acked_index[tp].clear()
        return following

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self.places.topics:
            await super()._add_gap(tp, offset_from, offset_to)


class LedgerTransport(driver.Transport):
    """Stock's transport with our consumer."""

    Consumer = BatchConsumer


class BatchSchema(faust.Schema[Any, Any]):
    """Passes the list of records through; decoding is the agent's."""

    def compile(
        self,
        app: AppT,
        *,
        on_key_decode_error: object = None,  # noqa: ARG002 - stock's signature
        on_value_decode_error: object = None,  # noqa: ARG002 - stock's signature
        default_propagate: bool = False,  # noqa: ARG002 - stock's signature
    ) -> Callable[..., Awaitable[EventT[Any]]]:
        """Return a decoder that makes an event of the message as it is."""
        create = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> EventT[Any]:  # noqa: ANN401, ARG001 - stock's signature
            return create(None, message.value, None, message)

        return decode


class StreamBuffer(ThrowableQueue[Any]):
    """Stock's buffer of a stream, which lets its partitions be fetched again when it is cleared.

    Stock takes a partition out of every fetch while its item waits here, and takes it back when the stream asks for the
    next item. A stream that waits already does not ask again: cleared before it wakes, the partition stayed away until
    another one of its topic brought something, or for ever.
    """

    def clear(self) -> None:
        """Drop what waits, and fetch again what it kept from being fetched."""
        super().clear()
        self.maybe_endorse_pressure_drop()


class LedgerApp(faust.App):
    """A Faust app whose consumer reads ledger topics in batches; the producer keeps the stock transport."""

    places: LedgerPlaces

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> StreamBuffer:  # noqa: N802 - stock's name
        """Return a buffer that flow control can suspend and clear."""
        return StreamBuffer(maxsize=maxsize or 0, flow_control=self.flow_control, clear_on_resume=clear_on_resume)

    @property
    def batch_consumer(self) -> BatchConsumer:
        """Return the app's consumer as what it is."""
        return cast("BatchConsumer", self.consumer)

    def _new_transport(self) -> LedgerTransport:
        return LedgerTransport(self.conf.broker_consumer, self)
