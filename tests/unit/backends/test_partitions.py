"""Reading partitions side by side: order, turns, revocation, gaps, outages and bugs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from backends.broker import partitions
from backends.broker.partitions import CAUGHT_UP_RECORDS, MOST_AT_WORK, LedgerAheadError, PartitionReader
from schemas.errors import RetryLaterError
from tests.unit.backends.partition_doubles import ONE, OTHER, THIRD, TOPIC, Consumer, Scene, at_work, settled


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """Give a scene."""
    async with at_work() as made:
        yield made


async def test_batches_of_a_partition_follow_each_other(scene: Scene) -> None:
    """The next batch of a partition begins after the ledger has moved."""
    await scene.assign(ONE, OTHER)
    await scene.send(ONE, 20)
    await scene.send(OTHER)
    assert scene.desk.begun == [(1, 0, 10), (2, 0, 10)]
    await scene.open()
    assert scene.desk.begun[2:] == [(1, 10, 20)]
    assert scene.desk.ledger == {1: 20, 2: 10}


async def test_few_partitions_work_at_a_time_and_the_others_stay_packed(scene: Scene) -> None:
    """Memory holds only the batches in hand, however many partitions have a backlog."""
    places = [TopicPartition(TOPIC, number) for number in range(MOST_AT_WORK + 2)]
    await scene.assign(*places)
    for place in places:
        await scene.send(place)
    assert [partition for partition, *_ in scene.desk.begun] == scene.consumer.unpacked == [0, 1]
    await scene.open()
    assert sorted(scene.desk.ledger.items()) == [(number, 10) for number in range(MOST_AT_WORK + 2)]


@pytest.mark.parametrize(("most", "spans"), [(1, [(0, 1), (1, 2), (2, 3)]), (2, [(0, 2), (2, 3)]), (10, [(0, 3)])])
async def test_a_batch_holds_no_more_records_than_it_may(most: int, spans: list[tuple[int, int]]) -> None:
    """A batch has at most as many records as the setting allows."""
    async with at_work(most_records=most) as scene:
        await scene.open()
        await scene.assign(ONE)
        await scene.send(ONE, 3)
        assert scene.desk.begun == [(1, *span) for span in spans]


async def test_a_batch_at_work_is_finished_before_its_partition_goes(scene: Scene) -> None:
    """A batch in hand is finished before its partition goes, so the next owner does not lose a compare."""
    await scene.assign(ONE, OTHER)
    await scene.send(ONE, 20)
    going = asyncio.ensure_future(scene.reader.on_partitions_revoked([ONE, OTHER]))
    await settled()
    assert (going.done(), scene.reader.placed, scene.reader.lags()) == (False, False, [])
    await scene.open()
    assert going.done()
    assert (scene.desk.begun, scene.desk.ledger) == ([(1, 0, 10)], {1: 10, 2: 0})
    assert set(scene.desk.forgotten) == {1, 2}
    await scene.send(ONE)
    assert scene.desk.begun == [(1, 0, 10)]


async def test_a_batch_that_waits_for_its_turn_is_dropped_with_its_partition(scene: Scene) -> None:
    """A batch that waits for its turn is dropped when its partition is revoked."""
    await scene.assign(ONE, OTHER, THIRD)
    for place in (ONE, OTHER, THIRD):
        await scene.send(place)
    await scene.reader.on_partitions_revoked([THIRD])
    await scene.open()
    assert scene.desk.ledger == {1: 10, 2: 10, 3: 0}


async def test_a_batch_that_takes_too_long_is_cancelled(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that takes too long is cancelled on revocation, because the whole group waits for it."""
    monkeypatch.setattr(partitions, "LEAVING_SECONDS", 0.01)
    await scene.assign(ONE)
    await scene.send(ONE)
    await asyncio.wait_for(scene.reader.on_partitions_revoked([ONE]), timeout=5)
    await scene.open()
    assert (scene.desk.begun, scene.desk.ledger[1]) == ([(1, 0, 10)], 0)
    assert not scene.reader.failure.done()


async def test_a_partition_that_comes_back_is_read_from_the_ledger(scene: Scene) -> None:
    """A partition that comes back is read from the ledger's offset, so nothing is counted again."""
    await scene.open()
    await scene.assign(ONE)
    await scene.send(ONE)
    await scene.reader.on_partitions_revoked([ONE])
    await scene.send(ONE, 20)
    scene.desk.ledger[1] = 25
    await scene.assign(ONE)
    assert scene.desk.begun == [(1, 0, 10), (1, 25, 30)]


async def test_a_lost_compare_concerns_its_own_partition_alone(scene: Scene) -> None:
    """A lost compare drops only the work of its own partition."""
    await scene.assign(ONE, OTHER)
    await scene.send(ONE)
    await scene.send(OTHER)
    scene.consumer.sought.clear()
    scene.desk.forgotten.clear()
    scene.desk.ledger[1] = 7
    await scene.open()
    assert (scene.consumer.sought, scene.desk.forgotten) == ([(1, 7)], [1])
    assert sorted(scene.desk.taken) == [(1, 7), (1, 8), (1, 9), *((2, number) for number in range(10))]
    assert not scene.reader.failure.done()


async def test_the_ledger_is_asked_again_after_an_outage(scene: Scene) -> None:
    """A batch whose commit is in doubt is neither lost nor taken twice."""
    await scene.open()
    scene.desk.away = [RetryLaterError("away"), OSError("away")]
    await scene.assign(ONE)
    assert scene.desk.asked == [1, 1, 1]
    scene.desk.errors[1] = RetryLaterError("lost while it committed")
    scene.desk.ledger[1] = 4
    scene.reader.readings[ONE].next_offset = 0
    await scene.send(ONE)
    assert scene.desk.taken == [(1, number) for number in range(4, 10)]


async def test_a_partition_waits_without_a_place_while_the_database_is_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without positions is not ready."""
    await scene.open()
    await scene.assign(ONE, OTHER)
    assert scene.reader.placed
    monkeypatch.setattr(partitions, "FIRST_DELAY_SECONDS", 60.0)
    await scene.reader.on_partitions_revoked([ONE])
    scene.desk.away = [RetryLaterError("away")]
    await scene.assign(ONE)
    assert (scene.reader.placed, [lag.partition for lag in scene.reader.lags()]) == (False, [2])


async def test_a_positioning_that_takes_too_long_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A positioning that gets no answer is tried again after a time limit."""
    monkeypatch.setattr(partitions, "POSITIONING_SECONDS", 0.01)
    scene.consumer.answers.clear()
    await scene.open()
    await scene.assign(ONE)
    async with asyncio.timeout(5):
        while len(scene.desk.asked) < 3:  # noqa: ASYNC110 - as time passes
            await asyncio.sleep(0.01)
    scene.consumer.answers.set()
    await scene.send(ONE)
    assert scene.desk.ledger[1] == 10


@pytest.mark.expects_errors("batch_failed")
async def test_a_bug_stops_the_process(scene: Scene) -> None:
    """A bug in a batch stops the process; the batch is not skipped."""
    scene.desk.errors[2] = ArithmeticError("planted")
    await scene.open()
    await scene.assign(ONE, OTHER)
    await scene.send(OTHER)
    with pytest.raises(ArithmeticError):
        scene.reader.failure.result()
    await scene.send(OTHER)
    assert scene.desk.begun == [(2, 0, 10)]


async def test_a_gap_is_bridged_when_the_broker_has_nothing_there(scene: Scene) -> None:
    """Records that expired, and markers of transactions, are not waited for."""
    await scene.open()
    await scene.assign(ONE)
    await scene.send(ONE, 10, gap=30)
    await scene.send(ONE, 10)
    assert scene.desk.begun == [(1, 0, 40), (1, 40, 50)]


async def test_records_that_a_read_has_lost_are_read_again(scene: Scene) -> None:
    """Records that a read has lost are read again: only the broker decides what is a gap."""
    await scene.open()
    await scene.assign(ONE)
    scene.consumer.lost = [5, 3]
    await scene.send(ONE, 20)
    assert scene.desk.taken == [(1, number) for number in range(20)]


async def test_no_gap_is_believed_while_the_broker_is_away(scene: Scene) -> None:
    """An outage of the broker is not taken for a gap."""
    await scene.open()
    await scene.assign(ONE)
    scene.firsts = [RetryLaterError("away"), KafkaConnectionError("away"), 5]
    await scene.send(ONE, 10, gap=30)
    assert scene.firsts == []
    assert scene.desk.begun == [(1, 0, 40)]


async def test_what_lies_behind_the_next_offset_is_not_taken(scene: Scene) -> None:
    """Records before the next offset are not taken again when a consumer goes back by itself."""
    await scene.open()
    await scene.assign(ONE)
    await scene.send(ONE)
    scene.consumer.positions[ONE] = 4
    await scene.send(ONE)
    assert scene.desk.taken == [(1, number) for number in range(20)]


async def test_what_expired_is_bridged_from_the_partition_s_new_beginning(scene: Scene) -> None:
    """A worker that was away for longer than the retention continues at the partition's new beginning."""
    await scene.open()
    await scene.assign(ONE)
    await scene.send(ONE)
    await scene.reader.on_partitions_revoked([ONE])
    await scene.send(ONE, 33)
    scene.consumer.expire(ONE, 40)
    await scene.assign(ONE)
    assert scene.desk.begun == [(1, 0, 10), (1, 10, 43)]
    assert scene.consumer.sought[-1] == (1, 40)


@pytest.mark.expects_errors("ledger_ahead_of_topic")
@pytest.mark.parametrize("is_running", [False, True])
async def test_a_partition_that_ends_below_the_ledger_stops_the_process(scene: Scene, *, is_running: bool) -> None:
    """A partition that ends below the ledger stops the process: the topic is new, or the broker lost data."""
    await scene.open()
    scene.consumer.send(ONE, 100)
    scene.desk.ledger[1] = 100
    scene.consumer.ends[ONE] = 100 if is_running else 99
    await scene.assign(ONE)
    assert scene.reader.failure.done() is not is_running
    scene.consumer.ends[ONE] = 99
    scene.consumer.send(ONE, 0)
    await settled()
    with pytest.raises(
        LedgerAheadError, match=r"events partition 1 was read up to offset 100, but the partition ends at 99"
    ):
        scene.reader.failure.result()


async def test_a_ledger_that_moves_while_the_broker_is_asked_is_not_ahead(scene: Scene) -> None:
    """A commit of another worker between two queries does not stop a worker."""
    await scene.open()
    scene.consumer.answers.clear()
    await scene.assign(ONE)
    scene.consumer.send(ONE, 50)
    scene.desk.ledger[1] = 50
    scene.consumer.answers.set()
    await settled()
    await scene.send(ONE, 5)
    assert scene.desk.taken == [(1, number) for number in range(50, 55)]


@pytest.mark.parametrize(("records", "is_behind"), [(CAUGHT_UP_RECORDS, False), (CAUGHT_UP_RECORDS + 1, True)])
async def test_a_worker_is_behind_while_a_partition_is_far_from_its_end(
    scene: Scene, records: int, *, is_behind: bool
) -> None:
    """A worker is behind while a partition is far from its end; it remembers when a backlog has been read."""
    await scene.assign(ONE)
    await scene.send(ONE, records)
    [lag] = scene.reader.lags()
    assert (lag.topic, lag.partition, lag.position, lag.end) == (TOPIC, 1, 0, records)
    assert (scene.reader.is_behind, scene.reader.caught_up) == (is_behind, not is_behind)
    scene.consumer.send(ONE, CAUGHT_UP_RECORDS + 1)
    assert (scene.reader.is_behind, scene.reader.caught_up) == (True, not is_behind)


async def test_the_positions_are_committed_when_they_have_moved(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved positions are committed for tools that show the lag; a broker that is away stops nothing."""
    monkeypatch.setattr(partitions, "COMMIT_SECONDS", 0.0)
    await scene.open()
    await scene.assign(ONE, OTHER)
    committing = asyncio.ensure_future(scene.reader._commit_positions())
    await settled()
    scene.consumer.errors = [KafkaConnectionError("away")]
    await scene.send(ONE)
    await settled()
    assert scene.consumer.committed == [{ONE: 0, OTHER: 0}, {ONE: 10}]
    assert not committing.done()
    committing.cancel()


class Client(Consumer):
    """A consumer that can be started: the broker is away at first, and a test can end aiokafka's own tasks."""

    made: list[Client]
    inner_error: BaseException | None

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.settings, self.stopped = settings, False
        self.inner: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fetcher = self._coordinator = self
        self.error_future, self._coordination_task = self.inner, asyncio.get_running_loop().create_future()
        self.made.append(self)

    def subscribe(self, topics: list[str], *, listener: PartitionReader) -> None:
        """Record the listener."""
        self.subscribed = topics, listener

    async def start(self) -> None:
        """Be away at the first try."""
        if len(self.made) == 1:
            raise KafkaConnectionError("away")

    async def stop(self) -> None:
        """Record the stop."""
        self.stopped = True


async def test_a_reader_waits_for_the_broker_and_ends_with_aiokafka_s_own_tasks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader waits for a broker that starts late, and ends when aiokafka's own tasks end."""
    Client.made = []
    monkeypatch.setattr(partitions, "AIOKafkaConsumer", Client)
    running = asyncio.ensure_future(scene.reader.run())
    await settled()
    first, second = Client.made
    assert (first.stopped, second.stopped, second.subscribed) == (True, False, ([TOPIC], scene.reader))
    assert second.settings["isolation_level"] == "read_committed"
    assert not running.done()
    second.inner.set_exception(KafkaConnectionError("Unexpected error during data retrieval"))
    with pytest.raises(KafkaConnectionError, match="Unexpected"):
        await asyncio.wait_for(running, timeout=5)
    await scene.reader.stop()
    assert second.stopped


FAULTS = st.sampled_from(["send", "gap", "lose", "away", "doubt", "zombie", "rebalance", "expire"])


@given(st.lists(st.tuples(FAULTS, st.integers(1, 25)), max_size=25))
def test_every_record_is_taken_once_and_in_order_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """No order of faults counts a record twice or skips one that the broker has."""
    asyncio.run(_taken_once(steps))


async def _taken_once(steps: list[tuple[str, int]]) -> None:
    async with at_work() as scene:
        await scene.open()
        await scene.assign(ONE)
        elsewhere: list[int] = []  # taken by another worker, or expired
        gone: list[int] = []
        for step, number in steps:
            if step in {"send", "gap"}:
                await scene.send(ONE, number, gap=number if step == "gap" else 0)
            elif step == "lose":
                scene.consumer.lost.append(number)
            elif step == "away":
                scene.desk.away += [RetryLaterError("away")] * number
            elif step == "doubt":
                scene.desk.errors[1] = RetryLaterError("in doubt")
            elif step == "zombie":
                to = min(scene.desk.ledger[1] + number, scene.consumer.end(ONE))
                elsewhere += [offset for offset in scene.consumer.offsets[ONE] if scene.desk.ledger[1] <= offset < to]
                scene.desk.ledger[1] = max(to, scene.desk.ledger[1])
            elif step == "expire":
                begin = min(scene.desk.ledger[1] + number, scene.consumer.end(ONE) - 1)
                elsewhere += [
                    offset for offset in scene.consumer.offsets[ONE] if scene.desk.ledger[1] <= offset < begin
                ]
                gone += [offset for offset in scene.consumer.offsets[ONE] if offset < begin]
                scene.consumer.expire(ONE, begin)
            elif step == "rebalance":
                await scene.reader.on_partitions_revoked([ONE])
                await scene.assign(ONE)
        scene.desk.away.clear()
        for _ in range(30):
            await scene.send(ONE, 1)
        taken = [offset for _, offset in scene.desk.taken]
        assert taken == sorted(taken)
        assert sorted(taken + elsewhere) == gone + scene.consumer.offsets[ONE]
