"""The bounded buffer between the host and the broker: events that were accepted and are not yet settled.

An event is settled when the broker has acknowledged it or the producer has given it up. Until then it counts
towards both limits, whether it waits or is already in flight, so memory stays bounded.
One event loop owns a buffer; nothing here is safe to call from another thread.
"""

from __future__ import annotations

import asyncio
import collections
import heapq
import itertools
import time
from collections.abc import Iterable, Iterator
from uuid import UUID

import msgspec

from fincoach_events.errors import ProducerBusyError
from fincoach_events.events import AnyBehavioralEvent


class OutgoingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it goes onto the topic.

    Attributes:
        value: its bytes.
        key: the topic key, the user's id.
        event_id: its identifier; None for foreign bytes that name none.
        event: the event itself; None for foreign bytes.
    """

    value: bytes
    key: bytes | None
    event_id: UUID | None
    event: AnyBehavioralEvent | None = None


class Slot(msgspec.Struct, eq=False):
    """An accepted event's place in the buffer."""

    outgoing: OutgoingEvent
    size_bytes: int
    sequence: int
    accepted_at: float
    settled: bool = False


class EventBuffer:
    """A queue with two limits; both count every event that was accepted and is not yet settled."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._sequence = itertools.count()
        self._new: collections.deque[Slot] = collections.deque()
        self._returned: list[tuple[int, Slot]] = []  # a heap; each of these is older than all of _new
        self._queued_bytes = 0
        self._unsettled: dict[int, Slot] = {}
        self._unsettled_bytes = 0
        self._room = asyncio.Event()
        self._waiting = 0
        self._turn = asyncio.Lock()  # fair: callers get room in the order of their calls
        self._work = asyncio.Event()

    def __len__(self) -> int:
        """Return how many events are accepted and not settled."""
        return len(self._unsettled)

    @property
    def queued_bytes(self) -> int:
        """Return how many bytes wait to be taken."""
        return self._queued_bytes

    async def put(self, outgoing: OutgoingEvent, *, timeout_seconds: float) -> Slot:
        """Accept an event, in the order of the calls; wait at most ``timeout_seconds`` for room.

        Raises:
            ProducerBusyError: there was no room within that time; the event was not accepted.
        """
        size_bytes = len(outgoing.value) + len(outgoing.key or b"")
        if self._waiting or not self._fits(size_bytes):
            await self._wait_for_room(size_bytes, timeout_seconds)
        slot = Slot(outgoing, size_bytes, next(self._sequence), time.monotonic())
        self._unsettled[slot.sequence] = slot
        self._unsettled_bytes += size_bytes
        self._new.append(slot)
        self._queued_bytes += size_bytes
        self._work.set()
        return slot

    async def wait_for_work(self) -> None:
        """Return as soon as an event waits to be taken."""
        while self._oldest() is None:
            self._work.clear()
            await self._work.wait()

    def take(self, *, max_bytes: int) -> list[Slot]:
        """Return the oldest waiting events, up to ``max_bytes`` in total; at least one if any waits."""
        taken: list[Slot] = []
        room = max_bytes
        while (slot := self._oldest()) is not None and (not taken or slot.size_bytes <= room):
            self._pop_oldest()
            self._queued_bytes -= slot.size_bytes
            if not slot.settled:
                room -= slot.size_bytes
                taken.append(slot)
        return taken

    def put_back(self, slots: Iterable[Slot]) -> None:
        """Return taken events to the queue, in their original order.

        The cost depends only on ``slots``: when the broker goes away, many batches return one after the other
        to a full buffer, on the host's event loop.
        """
        for slot in slots:
            if not slot.settled:
                heapq.heappush(self._returned, (slot.sequence, slot))
                self._queued_bytes += slot.size_bytes
        self._work.set()

    def settle(self, slot: Slot) -> bool:
        """Free the event's room; return whether this call did it (a late second answer changes nothing)."""
        if slot.settled:
            return False
        slot.settled = True
        del self._unsettled[slot.sequence]
        self._unsettled_bytes -= slot.size_bytes
        self._room.set()
        return True

    def unsettled(self) -> Iterator[Slot]:
        """Yield the events that are not settled, oldest first."""
        yield from list(self._unsettled.values())

    async def wait_until_settled(self) -> None:
        """Return when every event accepted before this call is settled."""
        last = next(reversed(self._unsettled), None)
        while last is not None and self._unsettled and next(iter(self._unsettled)) <= last:
            self._room.clear()
            await self._room.wait()

    def _oldest(self) -> Slot | None:
        if self._returned:
            return self._returned[0][1]
        return self._new[0] if self._new else None

    def _pop_oldest(self) -> None:
        if self._returned:
            heapq.heappop(self._returned)
        else:
            self._new.popleft()

    def _fits(self, size_bytes: int) -> bool:
        return len(self._unsettled) < self._max_events and self._unsettled_bytes + size_bytes <= self._max_bytes

    async def _wait_for_room(self, size_bytes: int, timeout_seconds: float) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_seconds), self._turn:
                while not self._fits(size_bytes):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise ProducerBusyError(
                f"{len(self._unsettled)} events wait for the broker; no room within {timeout_seconds} s, so this event was not accepted: "
                "send it again later with the same idempotency key"
            ) from None
        finally:
            self._waiting -= 1
