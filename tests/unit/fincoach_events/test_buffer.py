"""The bounded buffer between the host and the broker."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.buffer import EventBuffer, OutgoingEvent, Slot
from fincoach_events.errors import ProducerBusyError


def outgoing(size_bytes: int = 10) -> OutgoingEvent:
    """Return an event of a size."""
    return OutgoingEvent(value=b"v" * size_bytes, key=None, event_id=uuid4())


async def filled(buffer: EventBuffer, count: int, size_bytes: int = 10) -> list[Slot]:
    """Put events into a buffer that has room."""
    return [await buffer.put(outgoing(size_bytes), timeout_seconds=0) for _ in range(count)]


async def test_what_waits_is_taken_in_its_order() -> None:
    """Events are taken in the order in which they were accepted."""
    buffer = EventBuffer(max_events=10, max_bytes=1_000)
    slots = await filled(buffer, 5)
    assert buffer.take(max_bytes=25) == slots[:2]
    assert buffer.take(max_bytes=1) == slots[2:3]
    assert buffer.take(max_bytes=1_000) == slots[3:]
    assert buffer.take(max_bytes=1_000) == []


async def test_what_comes_back_keeps_its_place() -> None:
    """An event that is put back is taken again before later ones."""
    buffer = EventBuffer(max_events=10, max_bytes=1_000)
    slots = await filled(buffer, 4)
    taken = buffer.take(max_bytes=30)
    buffer.put_back([taken[2]])
    buffer.put_back([taken[0], taken[1]])
    assert buffer.take(max_bytes=1_000) == slots


@pytest.mark.parametrize("bound", ["events", "bytes"])
async def test_a_full_buffer_refuses_after_the_time_given(bound: str) -> None:
    """A full buffer refuses an event after the time given, so memory stays bounded and no request hangs."""
    buffer = EventBuffer(max_events=3 if bound == "events" else 100, max_bytes=30 if bound == "bytes" else 10_000)
    await filled(buffer, 3)
    started = time.monotonic()
    with pytest.raises(ProducerBusyError, match="3 events"):
        await buffer.put(outgoing(), timeout_seconds=0.05)
    assert 0.04 <= time.monotonic() - started < 0.5
    assert len(buffer) == 3


async def test_an_event_in_flight_counts_until_it_is_settled() -> None:
    """An event that was handed to the client counts towards the limits until it is settled."""
    buffer = EventBuffer(max_events=1, max_bytes=1_000)
    (slot,) = await filled(buffer, 1)
    buffer.take(max_bytes=1_000)
    waiting = asyncio.create_task(buffer.put(outgoing(), timeout_seconds=5))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert buffer.settle(slot)
    await asyncio.wait_for(waiting, 1)
    assert len(buffer) == 1


async def test_whoever_waits_for_room_is_not_overtaken() -> None:
    """Callers that wait for room are served in order; a later call does not overtake them."""
    buffer = EventBuffer(max_events=1, max_bytes=1_000)
    (slot,) = await filled(buffer, 1)
    calls = [asyncio.create_task(buffer.put(outgoing(), timeout_seconds=5)) for _ in range(2)]
    await asyncio.sleep(0)
    buffer.settle(slot)
    with pytest.raises(ProducerBusyError):
        await buffer.put(outgoing(), timeout_seconds=0)
    accepted = [await asyncio.wait_for(calls[0], 1)]
    assert not calls[1].done()
    buffer.settle(accepted[0])
    accepted.append(await asyncio.wait_for(calls[1], 1))
    assert [slot.sequence for slot in accepted] == [1, 2]


async def test_who_gives_up_waiting_leaves_its_turn() -> None:
    """A caller that gives up or is cancelled does not block later callers."""
    buffer = EventBuffer(max_events=1, max_bytes=1_000)
    (slot,) = await filled(buffer, 1)
    with pytest.raises(ProducerBusyError):
        await buffer.put(outgoing(), timeout_seconds=0.01)
    cancelled = asyncio.create_task(buffer.put(outgoing(), timeout_seconds=5))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    buffer.settle(slot)
    await buffer.put(outgoing(), timeout_seconds=0)


async def test_an_event_is_settled_once() -> None:
    """A late second answer settles nothing and frees no room."""
    buffer = EventBuffer(max_events=2, max_bytes=1_000)
    slots = await filled(buffer, 2)
    assert buffer.settle(slots[0])
    assert not buffer.settle(slots[0])
    assert len(buffer) == 1
    buffer.put_back([slots[0]])
    assert buffer.take(max_bytes=1_000) == slots[1:]


async def test_what_is_settled_while_it_is_away_does_not_wait_again() -> None:
    """A batch that comes back brings only what is still owed; what was given up meanwhile takes no room and wakes nobody."""
    buffer = EventBuffer(max_events=2, max_bytes=1_000)
    slots = await filled(buffer, 2)
    buffer.take(max_bytes=1_000)
    buffer.settle(slots[0])
    buffer.put_back([slots[0]])
    assert buffer.queued_bytes == 0
    working = asyncio.create_task(buffer.wait_for_work())
    await asyncio.sleep(0)
    assert not working.done()
    buffer.put_back([slots[1]])
    await asyncio.wait_for(working, 1)
    assert buffer.queued_bytes == slots[1].size_bytes
    assert buffer.take(max_bytes=1_000) == slots[1:]


async def test_waiting_for_settlement_ignores_what_comes_later() -> None:
    """Waiting for settlement ignores events accepted later, so a flush returns on a busy host."""
    buffer = EventBuffer(max_events=10, max_bytes=1_000)
    early = await filled(buffer, 2)
    waiting = asyncio.create_task(buffer.wait_until_settled())
    await asyncio.sleep(0)
    await filled(buffer, 1)
    buffer.settle(early[1])
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.settle(early[0])
    await asyncio.wait_for(waiting, 1)


async def test_an_empty_buffer_is_settled() -> None:
    """Waiting for settlement of an empty buffer returns at once."""
    await asyncio.wait_for(EventBuffer(max_events=1, max_bytes=1).wait_until_settled(), 1)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100))
def test_taking_loses_and_repeats_nothing(sizes: list[int], at_once: int) -> None:
    """Each accepted event is taken exactly once."""

    async def scenario() -> None:
        buffer = EventBuffer(max_events=1_000, max_bytes=100_000)
        put = [await buffer.put(outgoing(size), timeout_seconds=0) for size in sizes]
        taken: list[Slot] = []
        while group := buffer.take(max_bytes=at_once):
            assert len(group) == 1 or sum(slot.size_bytes for slot in group) <= at_once
            taken += group
        assert taken == put
        assert buffer.queued_bytes == 0

    asyncio.run(scenario())


@given(st.data())
def test_any_taking_and_putting_back_keeps_the_order(data: st.DataObject) -> None:
    """Any sequence of taking, putting back and settling keeps the order, loses nothing and repeats nothing."""

    async def scenario() -> None:
        buffer = EventBuffer(max_events=1_000, max_bytes=100_000)
        waiting: list[Slot] = []  # what must be taken next, in this order
        away: list[Slot] = []  # taken
        for step in data.draw(st.lists(st.sampled_from(("put", "take", "put_back", "settle")), max_size=40)):
            if step == "put":
                waiting += await filled(buffer, data.draw(st.integers(1, 5)))
            elif step == "take":
                taken = buffer.take(max_bytes=data.draw(st.integers(1, 80)))
                assert taken == waiting[: len(taken)]
                assert bool(taken) == bool(waiting)
                del waiting[: len(taken)]
                away += taken
            elif step == "put_back":
                returned = [slot for slot in away if data.draw(st.booleans())]
                away = [slot for slot in away if slot not in returned]
                buffer.put_back(data.draw(st.permutations(returned)))
                waiting = sorted([*waiting, *returned], key=lambda slot: slot.sequence)
            elif everywhere := [*waiting, *away]:
                settled = data.draw(st.sampled_from(everywhere))
                buffer.settle(settled)
                waiting, away = ([slot for slot in those if slot is not settled] for those in (waiting, away))
        assert buffer.take(max_bytes=100_000) == waiting
        assert buffer.queued_bytes == 0

    asyncio.run(scenario())


class _CountedNumber(int):
    """A sequence number that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        type(self).compared += 1
        return super().__lt__(other)


async def test_putting_back_does_not_sort_all_waiting_events() -> None:
    """The cost of putting a batch back does not depend on how many events wait, so the event loop stays free."""
    buffer = EventBuffer(max_events=20_000, max_bytes=1_000_000)
    await filled(buffer, 100)
    taken = buffer.take(max_bytes=1_000)
    await filled(buffer, 10_000)
    for slot in buffer.unsettled():
        slot.sequence = _CountedNumber(slot.sequence)
    for start in range(10):
        buffer.put_back(taken[start::10])
    assert _CountedNumber.compared < 10 * len(taken)
