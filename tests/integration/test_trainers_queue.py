"""The training queue on a real Postgres: one job a crossing, one run a model, fenced ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest
import sqlalchemy as sa

from backends.broker.interface import Record
from backends.clock import SystemClock
from backends.database.repositories.training import Ending, Run, TrainingRepository
from backends.database.unit_of_work import Database
from backends.store.content import ContentStore
from schemas.codec import decode, encode
from schemas.errors import InvalidMessageError, LostLeaseError
from schemas.messages.training import MetricComparison, ModelReady, ThresholdReached, TrainingFailed
from schemas.tables import model_training_events, outbox, rollout_decisions, training_jobs
from schemas.topics import MODEL_READY, THRESHOLD_REACHED
from schemas.vocabulary import JobStatus, TrainingStatus, Verdict
from tests.processes import eventually
from tests.training_factories import FIRST_DAY, crossing, database_of, queue_of, record_epoch, settings_of, span
from trainers.consumer import CrossingConsumer
from trainers.running.orchestrator import OrchestratorParts, TrainingOrchestrator
from trainers.running.queue import TrainingQueue
from trainers.snapshots.service import SnapshotService

if TYPE_CHECKING:
    from backends.broker.kafka import BrokerProducer

KEPT = Ending(verdict=Verdict.CHAMPION_KEPT, reasons=("not better",), metrics={"score": 1.0})


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a service's database."""
    database = database_of(database_url)
    yield database
    await database.close()


@pytest.fixture
def queue(database: Database, database_url: str, tmp_path: Path) -> TrainingQueue:
    """Give the queue as trainer-a sees it."""
    return queue_of(database, settings_of(database_url, tmp_path))


@pytest.fixture
def rival(database: Database, database_url: str, tmp_path: Path) -> TrainingQueue:
    """Give the queue as trainer-b sees it."""
    return queue_of(database, settings_of(database_url, tmp_path), owner="trainer-b")


async def rows_of(database: Database, table: sa.Table) -> list[sa.RowMapping]:
    """Return all rows of a table."""
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(table))).mappings().all())


async def leased(queue: TrainingQueue) -> Run:
    """Lease a run that must be due."""
    run = await queue.lease()
    assert run is not None
    return run


async def expire_leases(database: Database) -> None:
    """End every lease, as if its trainer had been silent for long."""
    async with database.transaction() as work:
        past = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 1)
        await work.connection.execute(sa.update(training_jobs).values(lease_until=past))


async def end_back_off(database: Database) -> None:
    """End every back-off."""
    async with database.transaction() as work:
        await work.connection.execute(sa.update(training_jobs).values(not_before=sa.func.now()))


async def test_a_crossing_that_is_announced_twice_is_one_job(queue: TrainingQueue, database: Database) -> None:
    """A crossing that is announced twice is one job."""
    assert await queue.add_crossing(crossing(epoch=1)) is True
    assert await queue.add_crossing(crossing(epoch=1)) is False
    assert len(await rows_of(database, training_jobs)) == 1


async def test_one_run_takes_all_waiting_epochs_of_its_model_and_no_other(queue: TrainingQueue) -> None:
    """One run takes all waiting epochs of its model, and of no other."""
    for epoch in (1, 2, 3):
        await queue.add_crossing(crossing(epoch=epoch, ranges=[span(10 * epoch, from_offset=10 * epoch - 10)]))
    await queue.add_crossing(crossing("goal", epoch=1))
    run = await leased(queue)
    assert (run.model_type, run.epochs) == ("spending", (1, 2, 3))
    assert [item.to_offset for item in run.ranges] == [10, 20, 30]
    assert (await leased(queue)).model_type == "goal"


async def test_a_model_that_trains_is_not_leased_again(queue: TrainingQueue, rival: TrainingQueue) -> None:
    """A model that trains is not leased again."""
    await queue.add_crossing(crossing(epoch=1))
    await leased(queue)
    await queue.add_crossing(crossing(epoch=2))
    assert await rival.lease() is None


async def test_many_trainers_that_ask_at_once_get_one_run(queue: TrainingQueue, rival: TrainingQueue) -> None:
    """Of many trainers that ask at once one gets the run."""
    await queue.add_crossing(crossing(epoch=1))
    runs = await asyncio.gather(*(asker.lease() for asker in (queue, rival) * 3))
    assert len([run for run in runs if run is not None]) == 1


async def expired_run(queue: TrainingQueue, database: Database) -> Run:
    """Return a run of epoch 1 whose trainer still believes in its lease."""
    await queue.add_crossing(crossing(epoch=1))
    run = await leased(queue)
    await expire_leases(database)
    return run


async def test_the_late_end_of_a_zombie_is_refused(
    queue: TrainingQueue, rival: TrainingQueue, database: Database
) -> None:
    """The late end of a trainer that lost its lease is refused."""
    zombie = await expired_run(queue, database)
    heir = await leased(rival)
    assert (heir.run_id, heir.attempt) == (zombie.run_id, 2)
    assert heir.fence > zombie.fence
    for act in (
        queue.finish(zombie, KEPT, None),
        queue.renew(zombie),
        queue.attempt_failed(zombie, "woke up"),
        queue.give_back(zombie),
    ):
        with pytest.raises(LostLeaseError):
            await act
    assert await rows_of(database, outbox) == []
    await rival.finish(heir, KEPT, None)
    events = await rows_of(database, model_training_events)
    assert [(event["status"], event["verdict"]) for event in events] == [
        (TrainingStatus.COMPLETED, Verdict.CHAMPION_KEPT)
    ]


async def test_a_zombie_is_refused_after_the_heir_has_finished(
    queue: TrainingQueue, rival: TrainingQueue, database: Database
) -> None:
    """A trainer that lost its lease is refused also after its successor has finished."""
    zombie = await expired_run(queue, database)
    await rival.finish(await leased(rival), KEPT, None)
    with pytest.raises(LostLeaseError):
        await queue.finish(zombie, KEPT, None)


async def test_a_run_that_ends_while_a_rival_takes_over_is_not_gone_on_with(
    queue: TrainingQueue, rival: TrainingQueue, database: Database
) -> None:
    """A run that ends while a rival takes over is not continued."""
    ending = await expired_run(queue, database)
    await queue.add_crossing(crossing(epoch=2))
    async with database.transaction() as work:
        await TrainingRepository(work.connection).finish(ending, KEPT)
        taking = asyncio.create_task(leased(rival))
        await eventually(lambda: waits_for_a_lock(database), what="the rival to wait for the jobs' rows")
    taken = await taking
    assert (taken.epochs, taken.run_id == ending.run_id) == ((2,), False)
    trained = {row["id"]: row["epochs"] for row in await rows_of(database, model_training_events)}
    assert trained == {ending.run_id: [1], taken.run_id: [2]}


async def waits_for_a_lock(database: Database) -> bool:
    """Say whether a session of this database waits for another's lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.reading() as connection:
        return bool(await connection.scalar(sa.text(query)))


async def test_a_winner_is_announced_with_its_verdict_or_not_at_all(queue: TrainingQueue, database: Database) -> None:
    """A winner is announced together with its verdict, or not at all."""
    await queue.add_crossing(crossing(epoch=1))
    run = await leased(queue)
    comparison = MetricComparison(metric="crps", higher_is_better=False, candidate=1.0, champion=2.0)
    ready = queue.ready(
        run, artifact=("artifacts/ab", "ab"), parent_digest=None, samples=5, snapshot_digest="cd", comparison=comparison
    )
    won = Ending(
        verdict=Verdict.CANDIDATE_WINS,
        reasons=("better",),
        metrics={},
        samples=5,
        score=1e9,
        artifact_address="artifacts/ab",
        artifact_digest="ab",
    )
    await queue.finish(run, won, ready)
    announced = [
        decode(MODEL_READY, row["payload"])
        for row in await rows_of(database, outbox)
        if row["topic"] == MODEL_READY.name
    ]
    assert [(message.training_event_id, message.epochs, message.artifact_digest) for message in announced] == [
        (run.run_id, (1,), "ab")
    ]
    assert isinstance(announced[0], ModelReady)
    (job,) = await rows_of(database, training_jobs)
    (event,) = await rows_of(database, model_training_events)
    assert (job["status"], event["status"], event["artifact_digest"]) == (
        JobStatus.DONE,
        TrainingStatus.COMPLETED,
        "ab",
    )


async def test_a_training_fails_after_its_last_attempt_and_says_so(queue: TrainingQueue, database: Database) -> None:
    """A training fails after its last attempt, and each failure is announced."""
    await queue.add_crossing(crossing(epoch=1))
    again = []
    for _ in range(3):
        again.append(await queue.attempt_failed(await leased(queue), "no luck"))
        await end_back_off(database)
    assert again == [True, True, False]
    assert await queue.lease() is None
    messages = [
        decode(MODEL_READY, row["payload"])
        for row in await rows_of(database, outbox)
        if row["topic"] == MODEL_READY.name
    ]
    assert [message.will_retry for message in messages if isinstance(message, TrainingFailed)] == [True, True, False]
    assert len({message.event_id for message in messages}) == 3
    (event,) = await rows_of(database, model_training_events)
    assert (event["status"], event["verdict"], event["error"]) == (TrainingStatus.FAILED, Verdict.FAILED, "no luck")


async def test_a_training_that_is_given_back_loses_no_attempt(queue: TrainingQueue, rival: TrainingQueue) -> None:
    """A training that is given back loses no attempt."""
    await queue.add_crossing(crossing(epoch=1))
    run = await leased(queue)
    await queue.give_back(run)
    assert (await leased(rival)).attempt == 1


async def test_an_epoch_that_comes_during_a_run_has_its_own_run_after_it(
    queue: TrainingQueue, database: Database
) -> None:
    """An epoch that comes during a run has its own run afterwards."""
    await queue.add_crossing(crossing(epoch=1))
    first = await leased(queue)
    await queue.add_crossing(crossing(epoch=2))
    await queue.finish(first, KEPT, None)
    second = await leased(queue)
    assert second.epochs == (2,)
    assert second.run_id != first.run_id
    await queue.finish(second, KEPT, None)
    assert [
        event["epochs"]
        for event in sorted(await rows_of(database, model_training_events), key=lambda row: row["created_at"])
    ] == [[1], [2]]


async def test_a_training_names_the_data_set_of_its_epoch(queue: TrainingQueue, database: Database) -> None:
    """A training names the data set of its epoch."""
    message = crossing(epoch=1)
    await record_epoch(database, message)
    await queue.add_crossing(message)
    await leased(queue)
    (event,) = await rows_of(database, model_training_events)
    assert event["training_dataset_id"] is not None


async def test_a_model_trains_only_after_the_decision_about_its_last_winner(
    queue: TrainingQueue, database: Database
) -> None:
    """A model trains only after the decision about its last winner."""
    winner = uuid4()
    won = {
        "id": winner,
        "model_type": "spending",
        "status": TrainingStatus.COMPLETED,
        "end_time": sa.func.now(),
    }
    async with database.transaction() as work:
        await work.connection.execute(
            model_training_events.insert().values(**won, verdict=Verdict.CANDIDATE_WINS, deployment_approved=False)
        )
    await queue.add_crossing(crossing(epoch=1))
    assert await queue.lease() is None
    async with database.transaction() as work:
        decision = {
            "model_type": "spending",
            "training_event_id": winner,
            "decision": "promoted",
            "reason": "better",
        }
        await work.connection.execute(rollout_decisions.insert().values(**decision))
    assert (await leased(queue)).model_type == "spending"


async def test_a_decision_that_never_comes_stops_no_training(queue: TrainingQueue, database: Database) -> None:
    """A decision that never comes stops no training."""
    long_ago = sa.func.now() - sa.text("interval '3 minutes'")
    async with database.transaction() as work:
        await work.connection.execute(
            model_training_events.insert().values(
                id=uuid4(), model_type="spending", status=TrainingStatus.COMPLETED, end_time=long_ago,
                verdict=Verdict.CANDIDATE_WINS,
            )
        )  # fmt: skip
    await queue.add_crossing(crossing(epoch=1))
    assert (await leased(queue)).model_type == "spending"


@pytest.mark.parametrize("epoch", [2**31, 2**70, -(2**31) - 1])
async def test_a_crossing_that_no_column_holds_is_dead_lettered(
    queue: TrainingQueue, database: Database, epoch: int
) -> None:
    """An epoch beyond 32 bits ends as a dead letter, and the crossing behind it is queued."""
    consumer = CrossingConsumer(queue, wake=lambda: None)
    with pytest.raises(InvalidMessageError, match="the database cannot hold it"):
        await consumer.handle(_record(crossing(epoch=epoch)))
    await consumer.handle(_record(crossing(epoch=5)))
    assert [job["epoch"] for job in await rows_of(database, training_jobs)] == [5]


async def test_a_training_whose_ranges_nobody_can_read_has_failed(
    queue: TrainingQueue, database: Database, database_url: str, tmp_path: Path
) -> None:
    """A crossing about a partition beyond 32 bits ends in a failed training that says why, after its attempts."""
    settings = settings_of(database_url, tmp_path, training_max_attempts=2)
    store = ContentStore(settings.resolved_store_url)
    orchestrator = TrainingOrchestrator(OrchestratorParts(
        database=database, queue=queue_of(database, settings), producer=cast("BrokerProducer", None), clock=SystemClock(),
        snapshots=SnapshotService(database, store, page_rows=7, seed=0), settings=settings,
    ))  # fmt: skip
    unreadable = span(10, partition=2**40)
    await CrossingConsumer(queue, wake=lambda: None).handle(_record(crossing(ranges=[unreadable])))
    for _ in range(2):
        assert await orchestrator.run_next_training()
        await end_back_off(database)
    assert not await orchestrator.run_next_training()
    (job,) = await rows_of(database, training_jobs)
    assert job["status"] == JobStatus.FAILED
    (event,) = await rows_of(database, model_training_events)
    assert "the database cannot hold it" in event["error"]


def _record(message: ThresholdReached) -> Record:
    return Record(
        topic=THRESHOLD_REACHED.name, partition=0, offset=0, key=b"spending", value=encode(message), timestamp=FIRST_DAY
    )
