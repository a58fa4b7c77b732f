"""A partition reader between a broker and a service in memory: each test decides what happens on either side."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from backends.broker import partitions
from backends.broker.partitions import PartitionReader, ReadAgainError

TOPIC = "events"
ONE, OTHER, THIRD = (TopicPartition(TOPIC, number) for number in (1, 2, 3))


@dataclass(frozen=True)
class Fetched:
    """A record, as far as a reader looks at it."""

    offset: int


class Consumer:
    """The part of aiokafka that a reader uses, over partitions in memory; a fetch holds ten records."""

    def __init__(self) -> None:
        self.offsets: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        self.begins: defaultdict[TopicPartition, int] = defaultdict(int)
        self.ends: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.sought: list[tuple[int, int]] = []
        self.unpacked: list[int] = []
        self.committed: list[dict[TopicPartition, int]] = []
        self.errors: list[Exception] = []
        self.lost: list[int] = []  # how many records of the next fetches never arrive
        self.answers = asyncio.Event()
        self.answers.set()
        self._sent = asyncio.Event()

    def send(self, place: TopicPartition, count: int = 10, *, gap: int = 0) -> None:
        """Append records behind a gap."""
        first = self.end(place) + gap
        self.offsets[place] += range(first, first + count)
        self._sent.set()
        self._sent = asyncio.Event()

    def expire(self, place: TopicPartition, begin: int) -> None:
        """Delete all records below ``begin``, as retention does; the last one stays."""
        self.offsets[place] = [offset for offset in self.offsets[place] if offset >= begin]
        self.begins[place] = max(begin, self.begins[place])

    def end(self, place: TopicPartition) -> int:
        """Return where a partition ends."""
        offsets = self.offsets[place]
        return self.ends.get(place, offsets[-1] + 1 if offsets else 0)

    async def getone(self, place: TopicPartition) -> Fetched:
        """Return the next record once there is one."""
        while True:
            if self.errors:
                raise self.errors.pop(0)
            position = self.positions[place]
            if self.ends.get(place, position) < position or self.begins[place] > position:
                raise OffsetOutOfRangeError({place: position})
            found = self._next(place, 1)
            if found and self.lost:
                self.positions[place] = min(position + self.lost.pop(), self.end(place))
            elif found:
                return found[0]
            else:
                await self._sent.wait()

    async def getmany(self, place: TopicPartition, *, timeout_ms: int, max_records: int) -> dict[Any, list[Fetched]]:
        """Return what was fetched together with the first record."""
        assert timeout_ms == 0
        self.unpacked.append(place.partition)
        found = self._next(place, min(max_records, 9))
        return {place: found} if found else {}

    def _next(self, place: TopicPartition, most: int) -> list[Fetched]:
        offsets = [offset for offset in self.offsets[place] if offset >= self.positions[place]][:most]
        if offsets:
            self.positions[place] = offsets[-1] + 1
        return [Fetched(offset) for offset in offsets]

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Continue at another offset."""
        self.sought.append((place.partition, offset))
        self.positions[place] = offset

    async def end_offsets(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Answer as the broker would."""
        await self.answers.wait()
        return {place: self.end(place) for place in places}

    async def beginning_offsets(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Answer as the broker would."""
        return {place: self.begins[place] for place in places}

    def assignment(self) -> set[TopicPartition]:
        """Return all partitions."""
        return {ONE, OTHER, THIRD}

    def highwater(self, place: TopicPartition) -> int:
        """Return the end as of the last fetch."""
        return self.end(place)

    async def commit(self, positions: dict[TopicPartition, int]) -> None:
        """Record the commit, or fail as a broker that is away."""
        if self.errors:
            raise self.errors.pop(0)
        self.committed.append(positions)


class Desk:
    """A double of the service: it takes batches, and waits, fails or loses the compare when a test says so."""

    def __init__(self) -> None:
        self.ledger: defaultdict[int, int] = defaultdict(int)
        self.taken: list[tuple[int, int]] = []
        self.begun: list[tuple[int, int, int]] = []
        self.errors: dict[int, Exception] = {}
        self.away: list[Exception] = []
        self.open = asyncio.Event()
        self.asked, self.forgotten = list[int](), list[int]()

    async def next_offset(self, topic: str, partition: int) -> int:
        """Return the ledger's next offset, unless the database is away."""
        assert topic == TOPIC
        self.asked.append(partition)
        if self.away:
            raise self.away.pop(0)
        return self.ledger[partition]

    async def take(self, topic: str, partition: int, records: Sequence[Fetched], *, from_offset: int) -> int:
        """Move the ledger on by compare-and-set, after waiting until the desk is open."""
        assert topic == TOPIC
        to_offset = records[-1].offset + 1
        self.begun.append((partition, from_offset, to_offset))
        await self.open.wait()
        if partition in self.errors:
            raise self.errors.pop(partition)
        if self.ledger[partition] != from_offset:
            raise ReadAgainError
        self.ledger[partition] = to_offset
        self.taken += [(partition, record.offset) for record in records]
        return to_offset

    def forget(self, topic: str, partition: int) -> None:
        """Record whose cache is dropped."""
        assert topic == TOPIC
        self.forgotten.append(partition)


class Scene:
    """A reader between a broker and a service in memory."""

    def __init__(self, *, most_records: int = 10) -> None:
        self.consumer, self.desk = Consumer(), Desk()
        self.reader = PartitionReader("-", [TOPIC], self.desk, group="g", session_seconds=6, most_records=most_records)
        self.reader._consumer = self.consumer
        self.firsts: list[int | Exception] = []  # what the broker answers about gaps; None: the true answer

    async def assign(self, *places: TopicPartition) -> None:
        """Give partitions to the reader."""
        await self.reader.on_partitions_assigned(places)
        await settled()

    async def send(self, place: TopicPartition, count: int = 10, *, gap: int = 0) -> None:
        """Append records and wait until the loop settles."""
        self.consumer.send(place, count, gap=gap)
        await settled()

    async def open(self) -> None:
        """Let the service take the batches that wait."""
        self.desk.open.set()
        await settled()

    async def first_offset(self, _: str, topic: str, partition: int, *, from_offset: int) -> int:
        """Answer as the broker would, or as the test says."""
        if self.firsts:
            answer = self.firsts.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return next(
            offset for offset in self.consumer.offsets[TopicPartition(topic, partition)] if offset >= from_offset
        )


async def settled() -> None:
    """Let the loop run until nothing more can happen."""
    for _ in range(40):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def at_work(*, most_records: int = 10) -> AsyncIterator[Scene]:
    """Give a scene without delays; stop its tasks afterwards."""
    scene = Scene(most_records=most_records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "first_offset", scene.first_offset)
        patch.setattr(partitions, "FIRST_DELAY_SECONDS", 0.0)
        try:
            yield scene
        finally:
            scene.desk.open.set()
            await scene.reader.on_partitions_revoked(list(scene.reader.readings))
