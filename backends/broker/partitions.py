"""A member of a consumer group that reads each partition from the offset that the owner of the work names.

Kafka's committed offset decides nothing: the owner keeps the next offset together with the effect. Each assigned partition has
a task of its own. It asks the owner for the next offset, seeks there, then reads and works; if in doubt, it asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaError

from backends.broker.interface import Lag
from backends.broker.positions import first_offset
from backends.telemetry.logs import get_logger
from schemas.errors import FinCoachError, RetryLaterError

log = get_logger("partitions")
# One fetch of a partition, and thus one batch: some seven thousand events as our client compresses them. A limit on the
# number of records would leave a small batch behind each large one. A single larger record is fetched all the same.
FETCH_BYTES = 704 * 1024
MOST_AT_WORK = 2  # of a topic: the same memory does more in two large batches than in three
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
POSITIONING_SECONDS = 20.0
LEAVING_SECONDS = 5.0  # for the batch in hand when its partition is revoked; the group waits meanwhile
COMMIT_SECONDS = 2.0
CAUGHT_UP_RECORDS = 2_000
AWAY_ERRORS: tuple[type[Exception], ...] = (RetryLaterError, KafkaError, OSError)


class LedgerAheadError(FinCoachError):
    """The ledger is ahead of the topic: the topic was created anew, or the broker lost data."""


class ReadAgainError(FinCoachError):
    """The next offset is in doubt: ask the owner, and read on from there."""


def as_parsed(key: bytes | None) -> bytes | None:
    """Mark a consumer whose records stay as the parser made them: this function is its key deserializer."""
    return key


class LightRecords(fetcher.PartitionRecords):  # type: ignore[misc] # aiokafka ships no types
    """Stock's unpacking of a fetch, which leaves the records of a marked consumer as the parser made them.

    Stock copies each into a record of eleven fields, of which we read five: this takes a twelfth of a worker's time.
    """

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - the parser's record
        return record if self._key_deserializer is as_parsed else super()._consumer_record(tp, record)


fetcher.PartitionRecords = LightRecords  # aiokafka has no other way in
SETTINGS = {
    "key_deserializer": as_parsed,
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "max_partition_fetch_bytes": FETCH_BYTES,
    "rebalance_timeout_ms": 30_000,
    # An offset that the broker does not have is an error, after which the owner is asked again.
    "auto_offset_reset": "none",
    # A broker answers the requests of a connection one by one: on an idle topic, a seek waits for the fetch before it.
    "fetch_max_wait_ms": 200,
    # aiokafka leaves the group when nobody reads for this long. While the database is away, nobody reads.
    "max_poll_interval_ms": 2**31 - 1,
}


class PartitionWork(Protocol):
    """The owner of the work: it knows the next offset of each partition, and works on what follows.

    After a :class:`RetryLaterError` or :class:`ReadAgainError` it is asked for the next offset again. Any other error is a
    bug and stops the process.
    """

    async def next_offset(self, topic: str, partition: int) -> int:
        """Return the offset at which reading goes on."""

    async def take(self, topic: str, partition: int, records: Sequence[Any], *, from_offset: int) -> int:
        """Work on ``records``, the first that the broker has from ``from_offset`` on; return the next offset."""

    def forget(self, topic: str, partition: int) -> None:
        """Drop what is cached for a partition."""


@dataclass(slots=True)
class Reading:
    """The reading of one assigned partition; nothing is taken before it has a position."""

    task: asyncio.Task[None] = field(init=False)
    next_offset: int = 0
    end_offset: int = 0
    is_placed: bool = False
    is_at_work: bool = False
    is_leaving: bool = False


class PartitionReader(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Reads the partitions that the group assigns, side by side; create it inside the running loop.

    At most two partitions of a topic unpack and work at a time: one computes while the other waits for the database. The
    fetches of the others stay compressed.
    """

    def __init__(
        self,
        brokers: str,
        topics: Collection[str],
        work: PartitionWork,
        *,
        group: str,
        session_seconds: float,
        most_records: int,
    ) -> None:
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.assigned: frozenset[TopicPartition] | None = None
        self.readings: dict[TopicPartition, Reading] = {}
        self.caught_up = False
        self._brokers = brokers
        self._work = work
        self._most_records = most_records
        self._turns = {topic: asyncio.Semaphore(MOST_AT_WORK) for topic in topics}
        self._settings = SETTINGS | {
            "bootstrap_servers": brokers,
            "client_id": group,
            "group_id": group,
            "session_timeout_ms": int(session_seconds * 1000),
            "heartbeat_interval_ms": int(session_seconds * 200),
        }
        self._consumer: Any = None

    @property
    def placed(self) -> bool:
        """Whether every assigned partition has its position."""
        return self.assigned is not None and self.assigned == self._positions().keys()

    @property
    def is_behind(self) -> bool:
        """Whether a backlog is being read: the last known end of a partition is far away."""
        return any(lag.records > CAUGHT_UP_RECORDS for lag in self.lags())

    def lags(self) -> list[Lag]:
        """Return position and end of each positioned partition; remember when none is far behind for the first time."""
        lags = [
            Lag(topic=place.topic, partition=place.partition, position=position, end=self._end_of(place))
            for place, position in self._positions().items()
        ]
        near = all(lag.records <= CAUGHT_UP_RECORDS for lag in lags)
        self.caught_up = self.caught_up or (self.placed and near)
        return lags

    async def run(self) -> None:
        """Join the group and read until cancelled; waits and tries again while the broker is away.

        Raises:
            LedgerAheadError: a partition ends below its next offset; a person must look.
            Exception: a bug.
        """
        await self._join()
        committing = asyncio.ensure_future(self._commit_positions())
        # aiokafka's own tasks end only by its bugs. Without them nothing is read, and nobody notices.
        inner = {self._consumer._fetcher.error_future, self._consumer._coordinator._coordination_task}  # noqa: SLF001
        try:
            ended, _ = await asyncio.wait({self.failure, committing, *inner}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            committing.cancel()
        for one in ended:
            one.result()

    async def stop(self) -> None:
        """Finish the batches in hand, take no others, and leave the group."""
        await self.on_partitions_revoked(list(self.readings))
        if self._consumer is not None:
            await self._consumer.stop()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin to read ``assigned``."""
        self.assigned = frozenset(assigned)
        for place in assigned:
            reading = self.readings[place] = Reading()
            reading.task = asyncio.ensure_future(self._read(place, reading))

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Stop taking from ``revoked``; a batch in hand is finished, or cancelled if it takes too long."""
        leaving = [self.readings.pop(place) for place in revoked if place in self.readings]
        for reading in leaving:
            reading.is_leaving = True
            if not reading.is_at_work:
                reading.task.cancel()
        late = {reading.task for reading in leaving}
        for _ in range(2):
            if late:
                _, late = await asyncio.wait(late, timeout=LEAVING_SECONDS)
            for task in late:
                task.cancel()
        for place in revoked:
            self._work.forget(*place)

    async def take(self, place: TopicPartition, reading: Reading, records: Sequence[Any]) -> None:
        """Work on ``records`` if they are the next ones.

        Raises:
            ReadAgainError: the broker has others before them.
        """
        if records[0].offset != reading.next_offset:
            await self._check_gap(place, expected=reading.next_offset, found=records[0].offset)
        reading.is_at_work = True
        try:
            reading.next_offset = await self._work.take(
                place.topic, place.partition, records, from_offset=reading.next_offset
            )
        finally:
            reading.is_at_work = False

    async def _join(self) -> None:
        while True:
            self._consumer = AIOKafkaConsumer(**self._settings)
            self._consumer.subscribe(list(self._turns), listener=self)
            try:
                await self._consumer.start()
            except (KafkaError, OSError) as error:
                log.warning("broker_away", error=repr(error))
                await self.stop()
                await asyncio.sleep(FIRST_DELAY_SECONDS)
            else:
                return

    async def _read(self, place: TopicPartition, reading: Reading) -> None:
        """Read a partition until it is revoked; if in doubt, begin anew at the owner's offset."""
        delay = FIRST_DELAY_SECONDS
        while not reading.is_leaving:
            try:
                await self._position(place, reading)
                while not reading.is_leaving:
                    await self._take_next(place, reading)
                    delay = FIRST_DELAY_SECONDS
            except ReadAgainError as error:
                log.info("read_again", topic=place.topic, partition=place.partition, reason=str(error))
            except AWAY_ERRORS as error:
                reading.is_placed = False
                log.warning("placing_delayed", topic=place.topic, partition=place.partition, error=repr(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)
            except Exception as error:  # noqa: BLE001 - the process's edge
                return self._fail(place, error)
        return None

    async def _position(self, place: TopicPartition, reading: Reading) -> None:
        """Ask the owner for the next offset, compare it with the partition's ends, and seek there."""
        reading.is_placed = False
        self._work.forget(*place)
        async with asyncio.timeout(POSITIONING_SECONDS):
            wanted = await self._work.next_offset(*place)
            end = (await self._consumer.end_offsets([place]))[place]  # asked last: the owner may move on meanwhile
            begin = (await self._consumer.beginning_offsets([place]))[place]
        if end < wanted:
            message = (
                f"the ledger says that {place.topic} partition {place.partition} was read up to offset {wanted}, "
                f"but the partition ends at {end}: the topic was created anew or the broker lost data. "
                f"Restore the topic, or raise its generation in the register to count it as a new one"
            )
            raise LedgerAheadError(message)
        self._consumer.seek(place, max(wanted, begin))
        reading.next_offset, reading.end_offset, reading.is_placed = wanted, end, True

    async def _take_next(self, place: TopicPartition, reading: Reading) -> None:
        """Wait for a record and for this partition's turn; take the record with all that were fetched behind it."""
        records = [await self._consumer.getone(place)]
        async with self._turns[place.topic]:
            if self._most_records > 1:
                rest = await self._consumer.getmany(place, timeout_ms=0, max_records=self._most_records - 1)
                records += rest.get(place, ())
            await self.take(place, reading, records)

    async def _check_gap(self, place: TopicPartition, *, expected: int, found: int) -> None:
        """Ask the broker whether the gap is empty: expired records or transaction markers."""
        first = await first_offset(self._brokers, *place, from_offset=expected)
        log.info("gap_judged", topic=place.topic, partition=place.partition, first=first, found=found)
        if first != found:
            raise ReadAgainError(f"read offset {found} in place of {first}")

    async def _commit_positions(self) -> None:
        """Commit the positions now and then, as a sign of life for tools that show lag; nothing reads them."""
        committed: dict[TopicPartition, int] = {}
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            moved = dict(self._positions().items() - committed.items())
            if moved:
                with contextlib.suppress(*AWAY_ERRORS):
                    await self._consumer.commit(moved)
                    committed |= moved

    def _positions(self) -> dict[TopicPartition, int]:
        return {place: reading.next_offset for place, reading in self.readings.items() if reading.is_placed}

    def _end_of(self, place: TopicPartition) -> int:
        """Return the end of a partition as of its last fetch or positioning."""
        reading = self.readings[place]
        if place in self._consumer.assignment():
            reading.end_offset = max(reading.end_offset, self._consumer.highwater(place) or 0)
        return reading.end_offset

    def _fail(self, place: TopicPartition, error: Exception) -> None:
        """Stop the process after a bug, or after what needs a person."""
        if isinstance(error, LedgerAheadError):
            log.error("ledger_ahead_of_topic", error=str(error))
        else:
            log.error("batch_failed", topic=place.topic, partition=place.partition, exc_info=error)
        if not self.failure.done():
            self.failure.set_exception(error)
