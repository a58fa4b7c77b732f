"""Puts ledger partitions where the ledger says, at every assignment, after a lost compare and after an outage.

While the database or the broker is away the partitions stay paused and without a position, so that nothing is
taken; one task in the background tries again until it succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from faust.exceptions import ConsumerNotStarted

from backends.broker.interface import Lag
from backends.telemetry.logs import get_logger
from schemas.errors import FinCoachError, RetryLaterError
from streams.reading.positions import Positions
from streams.reading.transport import BROKER_AWAY_ERRORS

if TYPE_CHECKING:
    from faust.types import TP

    from streams.reading.transport import BatchConsumer

log = get_logger("streams.reading.positioner")
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
CAUGHT_UP_RECORDS = 2_000
# Faust gives a placing 90 s and ends its recovery silently where it takes longer.
PLACING_SECONDS = 20.0
STRANDED_SECONDS = 120.0
HOLE_LOOKS = 10  # a hole that stands for so many looks was not read again: that read was lost too
AWAY_ERRORS: tuple[type[Exception], ...] = (RetryLaterError, *BROKER_AWAY_ERRORS)

# Reads the next offset of partitions from the ledger: (topic, partition numbers) -> next offset by number.
LedgerReader = Callable[[str, list[int]], Awaitable[dict[int, int]]]
# Asks the broker: (topic, partition number, offset) -> offset of the first record there or behind it.
FirstOffset = Callable[[str, int, int], Awaitable[int]]


class LedgerAheadError(FinCoachError):
    """The ledger is ahead of the topic: the topic was created anew, or the broker lost data."""


class StrandedError(FinCoachError):
    """Partitions of this worker have no position, and nobody is about to give them one."""


class LedgerPlacement:
    """Knows the positions of this worker's ledger partitions and restores them from the ledger."""

    def __init__(
        self,
        topics: Iterable[str],
        read_ledger: LedgerReader,
        *,
        first_offset: FirstOffset,
        forget_cache: Callable[[str, int], None],
    ) -> None:
        self.topics = frozenset(topics)
        self.positions: Positions[TP] = Positions()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.assigned: frozenset[TP] | None = None
        self.caught_up = False
        self._read_ledger = read_ledger
        self._first_offset = first_offset
        self._forget_cache = forget_cache
        self._waiting: set[TP] = set()
        self._seen: dict[TP, tuple[int, int]] = {}
        self._holes: dict[tuple[TP, int, int], int] = {}
        self._handled: Counter[str] = Counter()
        self._handling: Counter[str] = Counter()
        self._retrying: asyncio.Task[None] | None = None
        self._stranded_at: float | None = None

    def fail(self, error: BaseException) -> None:
        """Stop the process: what happened is a bug or needs a person."""
        if not self.failure.done():
            self.failure.set_exception(error)

    def check_not_stranded(self, *, now: float) -> None:
        """Stop the process when its partitions have stood without a position for long while nobody tries; ``now`` in seconds."""
        if self.assigned is None or self.placed or self._waiting:
            self._stranded_at = None
            return
        self._stranded_at = now if self._stranded_at is None else self._stranded_at
        if now - self._stranded_at >= STRANDED_SECONDS:
            names = sorted(f"{one.topic}/{one.partition}" for one in self.assigned if not self.positions.get(one))
            message = (
                f"{', '.join(names)} had no position for {STRANDED_SECONDS:.0f} s, and nothing was about to place them"
            )
            self.fail(StrandedError(message))

    def take_over(self, partitions: set[TP]) -> None:
        """Know that ``partitions`` are this worker's now, and no others."""
        self.assigned = frozenset(partitions)

    @property
    def placed(self) -> bool:
        """Whether every assigned partition has its position."""
        return self.assigned is not None and all(self.positions.get(partition) for partition in self.assigned)

    @property
    def is_behind(self) -> bool:
        """Whether a backlog is being read: a partition's end, as last seen, is far away."""
        return any(
            partition in (self.assigned or ()) and position.end_offset - position.next_offset > CAUGHT_UP_RECORDS
            for partition, position in self.positions.items()
        )

    def lags(self, consumer: BatchConsumer) -> list[Lag]:
        """Return position and end of each placed partition; the first time that none is far behind is remembered."""
        lags = []
        for partition, position in self.positions.items():
            if partition not in (self.assigned or ()):
                continue
            position.end_offset = max(position.end_offset, _highwater(consumer, partition))
            lags.append(
                Lag(
                    topic=partition.topic,
                    partition=partition.partition,
                    position=position.next_offset,
                    end=position.end_offset,
                )
            )
        near = all(lag.records <= CAUGHT_UP_RECORDS for lag in lags)
        self.caught_up = self.caught_up or (self.placed and near)
        return lags

    def forget(self, partitions: Iterable[TP]) -> None:
        """Take nothing more of ``partitions`` and drop what is cached for them."""
        for partition in partitions:
            self.positions.forget(partition)
            self._waiting.discard(partition)
            self._forget_cache(partition.topic, partition.partition)

    async def place(self, consumer: BatchConsumer, partitions: set[TP]) -> None:
        """Forget what is known of ``partitions``, read the ledger and seek there; on an outage go on trying later."""
        self.forget(partitions)
        try:
            await self._seek(consumer, partitions)
        except LedgerAheadError as error:
            self._fail_ahead(error)
        except AWAY_ERRORS as error:
            log.warning("placing_delayed", error=repr(error), partitions=len(partitions))
            self.place_later(consumer, partitions)
        except Exception as error:  # noqa: BLE001 - a bug, and Faust would go on without these partitions
            self.fail(error)

    def place_later(self, consumer: BatchConsumer, partitions: set[TP]) -> None:
        """Pause ``partitions`` and place them as soon as database and broker answer."""
        self.forget(partitions)
        consumer.pause_partitions(partitions)
        self._waiting |= partitions
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.ensure_future(self._retry(consumer))
            self._retrying.add_done_callback(self._retried)

    async def read_again(self, consumer: BatchConsumer, partition: TP) -> None:
        """Seek ``partition`` to its next offset once more, without forgetting that a hole was seen."""
        position = self.positions.get(partition)
        if position is None:
            return
        try:
            await self._seek_within(consumer, {partition: position.next_offset})
        except AWAY_ERRORS as error:
            log.warning("reading_again_delayed", error=repr(error))
            self.place_later(consumer, {partition})

    async def is_hole(self, consumer: BatchConsumer, partition: TP, *, below: int) -> bool:
        """Return whether the broker has no record from the next offset up to ``below``; if it has, read once more.

        Faust may clear its queues twice: two reads that begin at one offset prove nothing, and records that were taken
        for a hole are never counted.
        """
        position = self.positions.get(partition)
        if position is None:
            return False
        try:
            found = await self._first_offset(partition.topic, partition.partition, position.next_offset)
        except RetryLaterError as error:
            log.warning("hole_unconfirmed", error=repr(error))
            self.place_later(consumer, {partition})
            return False
        # Revoked or placed anew meanwhile: the answer is of another place.
        if self.positions.get(partition) is not position:
            return False
        log.info("hole_judged", topic=partition.topic, partition=partition.partition, found=found, below=below)
        if found >= below:
            return True
        self.positions.forget_hole(partition)
        await self.read_again(consumer, partition)
        return False

    @contextlib.contextmanager
    def handling(self, topic: str) -> Iterator[None]:
        """Say that an item of ``topic`` is in hand for the length of the block."""
        self._handling[topic] += 1
        try:
            yield
        finally:
            self._handling[topic] -= 1
            self._handled[topic] += 1

    async def check_not_ahead(self, consumer: BatchConsumer) -> None:
        """Stop the process when a topic ends below a position: what is sent now would be skipped as read; call it every now and then."""
        # A fetch's word for the end may be old, after a change of leaders for one: the broker is asked.
        ahead = {
            partition: position.next_offset
            for partition, position in self.positions.items()
            if 0 < _highwater(consumer, partition) < position.next_offset
        }
        if not ahead:
            return
        try:
            _check_not_ahead(ahead, await consumer.highwaters(*ahead))
        except LedgerAheadError as error:
            self._fail_ahead(error)
        except AWAY_ERRORS as error:
            log.warning("end_unknown", error=repr(error))

    async def read_lost_again(self, consumer: BatchConsumer) -> None:
        """Read again what was fetched and never arrived; call it every now and then, after :meth:`lags`.

        Stock clears its queues once more after a seek at start and rebalance. What comes behind shows the hole, but
        after the last record of a partition nothing comes: it would wait there until the next one is sent. And where the
        read for a hole is lost whole, what comes behind is skipped for ever.
        """
        seen = {
            partition: (position.next_offset, self._handled[partition.topic])
            for partition, position in self.positions.items()
            if position.end_offset > position.next_offset and not self._handling[partition.topic]
        }
        lost = {partition for partition, state in seen.items() if self._seen.get(partition) == state}
        lost |= self._standing_holes()
        self._seen = seen
        if not consumer.flow_active:
            return
        for partition in lost:
            log.info("delivery_lost", topic=partition.topic, partition=partition.partition)
            self.positions.forget_hole(partition)
            await self.read_again(consumer, partition)

    def _fail_ahead(self, error: LedgerAheadError) -> None:
        log.error("ledger_ahead_of_topic", error=str(error))
        self.fail(error)

    def _standing_holes(self) -> set[TP]:
        """Return the partitions whose hole stands since :data:`HOLE_LOOKS` looks, or a multiple of them."""
        holes = [
            (partition, position.next_offset, position.hole)
            for partition, position in self.positions.items()
            if position.hole is not None
        ]
        self._holes = {hole: self._holes.get(hole, 0) + 1 for hole in holes}
        return {hole[0] for hole, looks in self._holes.items() if looks % HOLE_LOOKS == 0}

    async def stop(self) -> None:
        """End the task in the background."""
        if self._retrying is not None:
            self._retrying.cancel()

    async def _retry(self, consumer: BatchConsumer) -> None:
        delay = FIRST_DELAY_SECONDS
        while self._waiting:
            await asyncio.sleep(delay)
            partitions = self._waiting & consumer.ledger_partitions()
            try:
                await self._seek(consumer, partitions)
            except AWAY_ERRORS as error:
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)
                log.warning("placing_delayed", error=repr(error), delay_seconds=delay)
                continue
            # What met another outage meanwhile has lost its position again, and waits on.
            placed = {partition for partition in partitions if self.positions.get(partition) is not None}
            consumer.resume_partitions(placed)
            self._waiting = (self._waiting & consumer.ledger_partitions()) - placed

    def _retried(self, ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            self.fail(error)

    async def _seek(self, consumer: BatchConsumer, partitions: set[TP]) -> None:
        if not partitions:
            return
        async with asyncio.timeout(PLACING_SECONDS):
            wanted = await self._next_offsets(partitions)
            ends = await consumer.highwaters(*partitions)
            _check_not_ahead(wanted, ends)
            # Placed before the seek: what is delivered in between is then judged by its offsets instead of being dropped.
            for partition, offset in wanted.items():
                self.positions.place(partition, offset, ends[partition])
            await self._seek_within(consumer, wanted)

    async def _next_offsets(self, partitions: set[TP]) -> dict[TP, int]:
        wanted: dict[TP, int] = {}
        for topic in {partition.topic for partition in partitions}:
            mine = {partition.partition: partition for partition in partitions if partition.topic == topic}
            found = await self._read_ledger(topic, sorted(mine))
            wanted |= {mine[number]: offset for number, offset in found.items()}
        return wanted

    async def _seek_within(self, consumer: BatchConsumer, wanted: dict[TP, int]) -> None:
        lowest = await consumer.earliest_offsets(*wanted)
        await consumer.seek_wait(
            {partition: max(offset, lowest.get(partition) or 0) for partition, offset in wanted.items()}
        )


def _highwater(consumer: BatchConsumer, partition: TP) -> int:
    """Return the end of ``partition`` as of the last fetch; 0 while it is unknown."""
    try:
        return consumer.highwater(partition) or 0
    # In a rebalance; aiokafka asserts that we own what we ask about, and another thread may take it away meanwhile.
    except (AssertionError, AttributeError, ConsumerNotStarted):
        return 0


def _check_not_ahead(wanted: Mapping[TP, int], ends: Mapping[TP, int]) -> None:
    for partition, offset in wanted.items():
        end = ends[partition]
        if end < offset:
            message = (
                f"the ledger says that {partition.topic} partition {partition.partition} was read up to offset {offset}, "
                f"but the partition ends at {end}: the topic was created anew or the broker lost data. "
                f"Restore the topic, or raise its generation in the register to count it as a new one"
            )
            raise LedgerAheadError(message)
