"""Batches on their way from the consumer to the service: what each partition's lane does about errors and revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from faust.types import TP

from schemas.errors import RetryLaterError
from schemas.topics import BEHAVIORAL_EVENTS
from streams.batches.batch import BatchOutcome, LedgerBatch, LostCompareError
from streams.reading.positioner import STRANDED_SECONDS, LedgerPlacement, StrandedError
from streams.reading.routes import LedgerRoute
from tests.unit.streams.worlds import FetchedEvent, paid

ONE, OTHER = TP(BEHAVIORAL_EVENTS.name, 1), TP(BEHAVIORAL_EVENTS.name, 2)


class Consumer:
    """As much of a consumer as placement asks for: two partitions without end, and where it was told to seek."""

    def __init__(self) -> None:
        self.sought: list[tuple[int, int]] = []
        self.paused: set[TP] = set()
        self.flow_active = True
        self.seeking, self.may_seek = asyncio.Event(), asyncio.Event()
        self.may_seek.set()

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        """Say that a partition ends far away."""
        return dict.fromkeys(partitions, 1_000_000)

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        """Say that nothing has expired."""
        return dict.fromkeys(partitions, 0)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Note where reading goes on."""
        self.seeking.set()
        await self.may_seek.wait()
        self.sought += [(partition.partition, offset) for partition, offset in partitions.items()]

    def ledger_partitions(self) -> set[TP]:
        """Say that both partitions are ours."""
        return {ONE, OTHER}

    def pause_partitions(self, partitions: set[TP]) -> None:
        """Note that nothing more is fetched."""
        self.paused |= partitions

    def resume_partitions(self, partitions: set[TP]) -> None:
        """Note that fetching goes on."""
        self.paused -= partitions


class Desk:
    """Stands where the service stands: takes batches, and waits, fails or loses the compare as it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int, int]] = []
        self.errors: dict[int, Exception] = {}
        self.open = asyncio.Event()
        self.ledger = {1: 0, 2: 0}

    async def handle(self, batch: LedgerBatch) -> BatchOutcome:
        """Move the ledger on, after waiting until the desk is open."""
        self.begun.append((batch.partition, batch.from_offset, batch.to_offset))
        await self.open.wait()
        if batch.partition in self.errors:
            raise self.errors.pop(batch.partition)
        self.ledger[batch.partition] = batch.to_offset
        return BatchOutcome(archived=len(batch.records), duplicates=0, dead_lettered=0)

    async def read(self, topic: str, partitions: list[int]) -> dict[int, int]:
        """Return where the ledger stands."""
        assert topic == BEHAVIORAL_EVENTS.name
        return {number: self.ledger[number] for number in partitions}


class Scene:
    """A route with everything around it, both partitions placed at 0."""

    def __init__(self) -> None:
        self.desk, self.consumer = Desk(), Consumer()
        self.forgotten: list[int] = []
        self.firsts: list[int | Exception] = []  # what the broker answers about holes
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.placement = LedgerPlacement(
            [BEHAVIORAL_EVENTS.name],
            self.desk.read,
            first_offset=self.first_offset,
            forget_cache=lambda _, number: self.forgotten.append(number),
        )
        self.route = LedgerRoute(BEHAVIORAL_EVENTS, self.placement, self.desk.handle)

    async def begin(self) -> None:
        """Place both partitions."""
        await self.placement.place(self.consumer, {ONE, OTHER})  # type: ignore[arg-type]
        self.forgotten.clear()
        self.consumer.sought.clear()

    async def first_offset(self, topic: str, partition: int, offset: int) -> int:
        """Answer as the broker would, or be away."""
        assert (topic, partition, offset) == (*ONE, 0)
        answer = self.firsts.pop(0)
        self.asked.set()
        if isinstance(answer, Exception):
            raise answer
        await self.may_answer.wait()
        return answer

    async def take(self, partition: TP, first: int, count: int = 10) -> None:
        """Hand over a fetch of ``partition``."""
        records = [FetchedEvent(paid(), offset=first + number) for number in range(count)]
        await self.route.take(self.consumer, partition, records)  # type: ignore[arg-type]
        await settled()


async def settled() -> None:
    """Let the loop do all that it can do now."""
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.fixture
async def scene() -> Scene:
    """Give a route that is ready."""
    made = Scene()
    await made.begin()
    return made


async def test_batches_of_a_partition_follow_each_other(scene: Scene) -> None:
    """The second batch would begin before the first has moved the ledger, and lose the compare."""
    await scene.take(ONE, 0)
    await scene.take(ONE, 10)
    await scene.take(OTHER, 0)
    assert scene.desk.begun == [(1, 0, 10), (2, 0, 10)]
    scene.desk.open.set()
    await settled()
    assert scene.desk.begun[2:] == [(1, 10, 20)]
    assert scene.desk.ledger == {1: 20, 2: 10}


async def test_nothing_is_taken_after_revocation(scene: Scene) -> None:
    """A batch that waited in its lane would be counted by a worker that does not own the partition any more."""
    await scene.take(ONE, 0)
    await scene.take(ONE, 10)
    scene.placement.forget({ONE})
    scene.desk.open.set()
    await settled()
    assert scene.desk.begun == [(1, 0, 10)]
    assert scene.placement.positions.get(ONE) is None


async def test_what_waited_while_the_partition_went_and_came_back_is_judged_by_the_ledger(scene: Scene) -> None:
    """A batch that another worker has counted meanwhile would be counted again."""
    await scene.take(ONE, 0)
    await scene.take(ONE, 10)
    scene.placement.forget({ONE})
    scene.desk.ledger[1] = 30
    await scene.placement.place(scene.consumer, {ONE})  # type: ignore[arg-type]
    scene.desk.errors[1] = LostCompareError()
    scene.desk.open.set()
    await settled()
    assert scene.desk.begun == [(1, 0, 10)]
    position = scene.placement.positions.get(ONE)
    assert position is not None
    assert position.next_offset == 30


async def test_a_lost_compare_concerns_its_own_lane_alone(scene: Scene) -> None:
    """One zombie partition would throw away the work of all others."""
    await scene.take(ONE, 0)
    await scene.take(OTHER, 0)
    scene.desk.errors[1], scene.desk.ledger[1] = LostCompareError(), 7
    scene.desk.open.set()
    await settled()
    assert scene.consumer.sought == [(1, 7)]
    assert scene.forgotten == [1]
    assert scene.desk.ledger == {1: 7, 2: 10}
    await scene.take(ONE, 0)
    assert scene.desk.begun[-1] == (1, 7, 10)
    assert not scene.placement.failure.done()


@pytest.mark.expects_errors("batch_failed")
async def test_a_bug_in_one_lane_stops_the_process(scene: Scene) -> None:
    """The batch would be acknowledged although nothing of it was done."""
    scene.desk.errors[2] = ArithmeticError("planted")
    scene.desk.open.set()
    await scene.take(OTHER, 0)
    with pytest.raises(ArithmeticError):
        await asyncio.wait_for(scene.placement.failure, timeout=5)
    assert scene.desk.ledger == {1: 0, 2: 0}


async def test_a_full_lane_holds_the_agent_up(scene: Scene) -> None:
    """The whole topic would be read into memory while the database is slow."""
    await scene.take(ONE, 0)
    await scene.take(ONE, 10)
    third = asyncio.ensure_future(scene.take(ONE, 20))
    await settled()
    assert not third.done()
    scene.desk.open.set()
    await third
    assert scene.desk.ledger[1] == 30


async def test_batches_at_work_are_finished_at_the_end(scene: Scene) -> None:
    """Whoever takes the partitions over would lose the compare against a worker that is already leaving."""
    await scene.take(ONE, 0)
    await scene.take(ONE, 10)
    stopped = asyncio.ensure_future(scene.route.stop())
    await settled()
    assert not stopped.done()
    scene.desk.open.set()
    await stopped
    assert scene.desk.ledger == {1: 10, 2: 0}


async def test_a_hole_is_jumped_over_when_the_broker_has_nothing_there(scene: Scene) -> None:
    """Records that retention has deleted would be waited for for ever."""
    scene.desk.open.set()
    scene.firsts = [30]
    await scene.take(ONE, 30)
    await scene.take(ONE, 40)
    assert scene.desk.begun == []
    await scene.take(ONE, 30)
    await scene.take(ONE, 40)
    assert scene.desk.begun == [(1, 0, 40), (1, 40, 50)]
    assert scene.consumer.sought == [(1, 0)]


async def test_a_read_that_was_lost_twice_is_no_hole(scene: Scene) -> None:
    """Records that Faust dropped twice would never be counted, and nobody would notice."""
    scene.desk.open.set()
    scene.firsts = [0]
    await scene.take(ONE, 30)
    await scene.take(ONE, 30)
    assert scene.desk.begun == []
    assert scene.consumer.sought == [(1, 0), (1, 0)]
    await scene.take(ONE, 0, count=30)
    await scene.take(ONE, 30)
    assert scene.desk.begun == [(1, 0, 30), (1, 30, 40)]


async def test_a_hole_that_no_read_has_filled_is_read_again_though_others_are_busy(scene: Scene) -> None:
    """Where the whole second read was lost, the partition would stand still for as long as events flow."""
    scene.desk.open.set()
    await scene.take(ONE, 30)
    for look in range(10):  # looks, of which one is taken every 2 s: not before, for the read may only be slow
        assert scene.consumer.sought == [(1, 0)]
        await scene.take(ONE, 40 + look)
        await scene.take(OTHER, look, count=1)
        await scene.placement.read_lost_again(scene.consumer)  # type: ignore[arg-type]
    assert scene.consumer.sought == [(1, 0), (1, 0)]
    await scene.take(ONE, 0, count=60)
    assert (1, 0, 60) in scene.desk.begun


async def test_no_hole_is_believed_while_the_broker_is_away(scene: Scene) -> None:
    """An outage would be taken for records that are not there, or end the process."""
    scene.desk.open.set()
    scene.firsts = [RetryLaterError("away")]
    await scene.take(ONE, 30)
    await scene.take(ONE, 30)
    assert scene.desk.begun == []
    assert scene.consumer.paused == {ONE}
    assert scene.placement.positions.get(ONE) is None
    await scene.placement.stop()


async def test_an_answer_about_a_place_that_is_given_up_is_no_answer(scene: Scene) -> None:
    """A batch would be committed on a partition that went and came back while the broker was asked."""
    scene.desk.open.set()
    scene.may_answer.clear()
    scene.firsts = [30]
    await scene.take(ONE, 30)
    asked = asyncio.ensure_future(scene.take(ONE, 30))
    await asyncio.wait_for(scene.asked.wait(), timeout=5)
    scene.placement.positions.place(ONE, 0, 100)
    scene.may_answer.set()
    await asked
    assert scene.desk.begun == []


async def test_a_placing_that_takes_too_long_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust would end its recovery without a word, and the worker keep partitions that it never reads."""
    monkeypatch.setattr("streams.reading.positioner.PLACING_SECONDS", 0.05)
    scene.consumer.may_seek.clear()
    await scene.placement.place(scene.consumer, {ONE})  # type: ignore[arg-type]
    assert (scene.consumer.paused, scene.placement.positions.get(ONE)) == ({ONE}, None)
    scene.consumer.may_seek.set()
    await asyncio.wait_for(scene.placement._retrying, 5)  # type: ignore[arg-type]
    assert (scene.consumer.paused, scene.placement.positions.get(ONE) is not None) == (set(), True)


async def test_what_meets_another_outage_while_it_is_placed_waits_on(scene: Scene) -> None:
    """A partition would have no position, and nobody who is about to give it one."""
    scene.placement.place_later(scene.consumer, {ONE})  # type: ignore[arg-type]
    scene.consumer.may_seek.clear()
    scene.consumer.seeking.clear()
    await asyncio.wait_for(scene.consumer.seeking.wait(), 5)
    scene.placement.place_later(scene.consumer, {ONE})  # type: ignore[arg-type]
    scene.consumer.may_seek.set()
    await asyncio.wait_for(scene.placement._retrying, 5)  # type: ignore[arg-type]
    assert (scene.consumer.paused, scene.placement.positions.get(ONE) is not None) == (set(), True)


async def test_partitions_that_nobody_is_about_to_place_end_the_process(scene: Scene) -> None:
    """They would stand still until somebody looks, while the worker calls itself alive."""
    scene.placement.take_over({ONE, OTHER})
    scene.placement.check_not_stranded(now=0.0)
    scene.placement.forget({ONE})
    for now, is_over in ((1.0, False), (STRANDED_SECONDS, False), (1.0 + STRANDED_SECONDS, True)):
        scene.placement.check_not_stranded(now=now)
        assert scene.placement.failure.done() is is_over
    with pytest.raises(StrandedError, match=f"{ONE.topic}/1 had no position for 120 s"):
        scene.placement.failure.result()


async def test_a_placing_under_way_is_not_stranded(scene: Scene) -> None:
    """A worker would be ended in each long outage, which ends by itself."""
    scene.placement.take_over({ONE, OTHER})
    scene.consumer.may_seek.clear()
    scene.placement.place_later(scene.consumer, {ONE})  # type: ignore[arg-type]
    for now in (0.0, 10 * STRANDED_SECONDS):
        scene.placement.check_not_stranded(now=now)
    assert not scene.placement.failure.done()
    await scene.placement.stop()
