"""The batches of a partition in their order, those of different partitions side by side."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from streams.reading.lanes import MOST_AT_WORK, MOST_WAITING, Lanes


class Work:
    """Work that lasts until it is released, and remembers what it was given."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []
        self._gates: defaultdict[tuple[str, int], asyncio.Event] = defaultdict(asyncio.Event)

    async def __call__(self, key: str, item: int) -> None:
        """Wait to be released."""
        self.begun.append((key, item))
        await self._gates[key, item].wait()
        self.ended.append((key, item))

    async def release(self, key: str, item: int) -> None:
        """Let one item end, and everything that follows from it happen."""
        self._gates[key, item].set()
        await settled()


async def settled() -> None:
    """Let the loop do all that it can do now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_partition_is_worked_on_in_its_order() -> None:
    """Two batches of a partition would compete for the ledger, and one of them lose the compare."""
    work = Work()
    lanes = Lanes(work)
    await lanes.put("p", 1)
    await settled()
    await lanes.put("p", 2)
    await settled()
    assert work.begun == [("p", 1)]
    await work.release("p", 1)
    assert work.begun == [("p", 1), ("p", 2)]


async def test_partitions_are_worked_on_side_by_side() -> None:
    """A batch would wait for the database's answer to another one that it has nothing to do with."""
    work = Work()
    lanes = Lanes(work)
    for number in range(MOST_AT_WORK + 1):
        await lanes.put(f"p{number}", 1)
        await settled()
    assert len(work.begun) == MOST_AT_WORK
    await work.release("p1", 1)
    assert work.begun[-1] == (f"p{MOST_AT_WORK}", 1)
    assert work.ended == [("p1", 1)]


async def test_all_lanes_together_hold_few_batches() -> None:
    """Each partition would hold a batch of its own: the more partitions, the more memory."""
    work = Work()
    lanes = Lanes(work)
    for number in range(MOST_AT_WORK + MOST_WAITING):
        await lanes.put(f"p{number}", 1)
        await settled()
    beyond = asyncio.ensure_future(lanes.put("another", 1))
    await settled()
    assert not beyond.done()
    await work.release("p0", 1)
    assert beyond.done()
    await asyncio.wait_for(beyond, timeout=5)
    assert ("another", 1) not in work.begun


async def test_a_full_lane_holds_the_reader_up() -> None:
    """A worker that is slower than its producers would take in the whole topic."""
    work = Work()
    lanes = Lanes(work)
    await lanes.put("p", 1)
    await settled()
    await lanes.put("p", 2)
    third = asyncio.ensure_future(lanes.put("p", 3))
    await settled()
    assert not third.done()
    await work.release("p", 1)
    assert third.done()
    assert work.begun == [("p", 1), ("p", 2)]


async def test_stopping_finishes_what_is_at_work_and_drops_the_rest() -> None:
    """A stopped worker would begin new transactions, or leave one in the middle."""
    work = Work()
    lanes = Lanes(work)
    await lanes.put("p", 1)
    await settled()
    await lanes.put("p", 2)
    waiting = asyncio.ensure_future(lanes.put("p", 3))
    stopped = asyncio.ensure_future(lanes.stop())
    await settled()
    assert waiting.done()
    assert not stopped.done()
    await work.release("p", 1)
    assert stopped.done()
    await lanes.put("q", 1)
    await settled()
    assert work.begun == [("p", 1)]


async def test_a_lane_without_a_turn_drops_what_waits() -> None:
    """A stopped worker would begin with partitions whose turn comes only when the others end."""
    work = Work()
    lanes = Lanes(work)
    for number in range(MOST_AT_WORK + 1):
        await lanes.put(f"p{number}", 1)
    await settled()
    stopped = asyncio.ensure_future(lanes.stop())
    for number in range(MOST_AT_WORK):
        await work.release(f"p{number}", 1)
    await asyncio.wait_for(stopped, timeout=5)
    assert len(work.begun) == MOST_AT_WORK


async def test_an_idle_lane_begins_again() -> None:
    """A partition that was quiet for a moment would never be read again."""
    seen: list[int] = []

    async def work(key: str, item: int) -> None:
        del key
        seen.append(item)

    lanes = Lanes(work)
    for number in range(5):
        await lanes.put("p", number)
        await settled()
    assert seen == [0, 1, 2, 3, 4]
