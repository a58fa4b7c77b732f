"""The trainer as a process on a real broker and database: crossings in, verdicts out, whatever is killed in between."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import sqlalchemy as sa

from backends.broker.kafka import BrokerConsumer, BrokerProducer, create_topics
from backends.clock import SystemClock
from backends.database.repositories.training import TrainingRepository
from backends.database.unit_of_work import Database
from backends.store.content import ContentStore
from modelkit.installation_key import installation_key
from modelkit.manifest import open_artifact
from modelkit.registry import definition_of, runtime_for
from modelkit.version_zero import baseline_artifact
from schemas.codec import decode, encode
from schemas.messages.control import CommandRejected, CommandSucceeded, TriggerTraining
from schemas.messages.training import ModelReady, TrainingProgressed
from schemas.tables import audit_log, command_inbox, model_training_events, model_versions, training_jobs
from schemas.topics import CONTROL, CONTROL_RESULTS, MODEL_READY, THRESHOLD_REACHED, TRAINING_PROGRESS, Topic
from schemas.vocabulary import JobStatus, TrainingStatus, Verdict
from tests.four_models import FOUR_MODELS
from tests.services import WIDE_PARTITIONS
from tests.training_factories import archive, crossing, database_of, record_epoch, record_quarantine, shop_history

PATIENCE_SECONDS = 180.0  # a bound, no promise: other tests run beside this one
Start = Callable[[], "asyncio.Future[asyncio.subprocess.Process]"]

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give the trainers' database."""
    database = database_of(database_url)
    yield database
    await database.close()


@pytest.fixture
async def producer(own_broker: str) -> AsyncIterator[BrokerProducer]:
    """Give a producer, and the topics of the register."""
    await create_topics(own_broker, wide_partitions=WIDE_PARTITIONS)
    producer = BrokerProducer(own_broker, client_id="test")
    await producer.start()
    yield producer
    await producer.stop()


class Trainers:
    """Starts trainer processes and ends those that are left."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> asyncio.subprocess.Process:
        """Start one more trainer."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "trainers", env=self._environment)
        self._processes.append(process)
        return process

    async def end(self) -> None:
        """Stop what still runs and let it leave its consumer group, so that the next test need not wait."""
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), timeout=20)
            except TimeoutError:
                process.kill()
                await process.wait()


@pytest.fixture
async def trainers(database_url: str, own_broker: str, tmp_path: Path) -> AsyncIterator[Trainers]:
    """Give a way to start trainers on this test's own database and folder."""
    settings = {
        "FINCOACH_DATABASE_URL": database_url, "FINCOACH_BROKERS": own_broker, "FINCOACH_FOLDER": str(tmp_path),
        "FINCOACH_TRAINING_LEASE_SECONDS": "3", "FINCOACH_TRAINING_RETRY_SECONDS": "0.1", "FINCOACH_TRAINING_POLL_SECONDS": "0.1",
        "FINCOACH_TRAINING_NICENESS": "0",  # other tests run beside it
    }  # fmt: skip
    started = Trainers({**os.environ, **settings})  # noqa: TID251 - the test is the operator
    yield started
    await started.end()


async def rows_of(database: Database, table: sa.Table) -> list[sa.RowMapping]:
    """Return all rows of a table."""
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(table))).mappings().all())


async def until(
    database: Database, table: sa.Table, *, holds: Callable[[list[sa.RowMapping]], bool], what: str
) -> list[sa.RowMapping]:
    """Wait until the rows of a table are as they should be; a failure names ``what``."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not holds(rows := await rows_of(database, table)):
        assert asyncio.get_running_loop().time() < deadline, f"waited for {what}, found {rows}"
        await asyncio.sleep(0.05)
    return rows


async def messages_of(broker: str, topic: Topic, *, holds: Callable[[list[object]], bool], what: str) -> list[object]:
    """Read a topic from its beginning until the messages are as they should be."""
    consumer = BrokerConsumer(broker, [topic], client_id="test")
    await consumer.start()
    found: list[object] = []
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    try:
        while not holds(found):
            assert asyncio.get_running_loop().time() < deadline, f"waited for {what}, found {found}"
            found += [decode(topic, record.value) for record in await consumer.fetch(timeout_seconds=0.5)]
    finally:
        await consumer.stop()
    return found


async def cross(database: Database, producer: BrokerProducer, *, users: int, weeks: int) -> None:
    """Archive a history of purchases and announce that the first epoch is over."""
    ranges = await archive(database, shop_history(users=users, weeks=weeks))
    message = crossing(epoch=1, ranges=ranges)
    await producer.publish(THRESHOLD_REACHED.name, b"spending", encode(message))


async def make_champion(database: Database, folder: Path) -> None:
    """Store version 0 and record that it is served, as the deployer does first."""
    artifact = baseline_artifact(definition_of("spending"), installation_key(folder / "keys"), SystemClock().now())
    address = ContentStore(f"file://{folder}/store").put("artifacts", artifact)
    async with database.transaction() as work:
        await work.connection.execute(model_versions.insert().values(
            model_type="spending", version="0.0.0", model_path=address, is_active=True, kind="baseline",
            artifact_digest=address.rsplit("/", 1)[-1],
        ))  # fmt: skip


def of_this_test(messages: list[object], run_id: object) -> list[object]:
    """Return the messages about one training; topics are shared by the tests of a run."""
    return [message for message in messages if getattr(message, "training_event_id", None) == run_id]


async def test_a_crossing_ends_in_a_model_that_is_ready_or_a_champion_that_is_kept(
    trainers: Trainers, database: Database, producer: BrokerProducer, own_broker: str, tmp_path: Path
) -> None:
    """A crossing ends in a model that is ready or a champion that is kept."""
    await make_champion(database, tmp_path)
    await cross(database, producer, users=400, weeks=30)
    await trainers.start()
    (event,) = await until(
        database, model_training_events, what="a verdict", holds=lambda rows: any(row["verdict"] for row in rows)
    )
    assert event["status"] == TrainingStatus.COMPLETED
    assert event["verdict"] in {Verdict.CANDIDATE_WINS, Verdict.CHAMPION_KEPT}, event["reasons"]
    assert event["performance_metrics"]["values"]["candidate"] > 0
    assert event["performance_metrics"]["cleaning"]["events"]["left_out"] == 0
    (job,) = await rows_of(database, training_jobs)
    assert (job["status"], job["training_event_id"]) == (JobStatus.DONE, event["id"])
    progress = await messages_of(
        own_broker, TRAINING_PROGRESS, what="the verdict among the progress",
        holds=lambda found: any(getattr(message, "verdict", None) for message in of_this_test(found, event["id"])),
    )  # fmt: skip
    phases = {
        message.phase for message in of_this_test(progress, event["id"]) if isinstance(message, TrainingProgressed)
    }
    assert phases >= {"fitting_lstm", "ended"}
    if event["verdict"] == Verdict.CANDIDATE_WINS:
        ready = await messages_of(
            own_broker, MODEL_READY, what="ModelReady", holds=lambda found: bool(of_this_test(found, event["id"]))
        )
        (message,) = of_this_test(ready, event["id"])
        assert isinstance(message, ModelReady)
        files = ContentStore(f"file://{tmp_path}/store").get(message.artifact_uri)
        runtime_for(open_artifact(files, installation_key(tmp_path / "keys").trusted()))
        assert message.artifact_uri.endswith(message.artifact_digest)


async def test_too_little_history_keeps_the_champion_with_a_reason(
    trainers: Trainers, database: Database, producer: BrokerProducer
) -> None:
    """Too little history keeps the champion, with a reason."""
    await cross(database, producer, users=50, weeks=3)
    await trainers.start()
    (event,) = await until(
        database, model_training_events, what="a verdict", holds=lambda rows: any(row["verdict"] for row in rows)
    )
    assert (event["status"], event["verdict"]) == (TrainingStatus.COMPLETED, Verdict.CHAMPION_KEPT)
    assert "not enough history" in event["reasons"][0]


async def running_child(process: asyncio.subprocess.Process) -> psutil.Process:
    """Wait for a trainer's training process."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        children = [
            child for child in psutil.Process(process.pid).children() if "trainers.running.worker" in child.cmdline()
        ]
        if children:
            return children[0]
        await asyncio.sleep(0.02)
    pytest.fail("waited for a training process")


async def test_a_killed_trainer_takes_its_training_along_and_another_one_completes_it_once(
    trainers: Trainers, database: Database, producer: BrokerProducer
) -> None:
    """A training dies with its killed trainer, and another trainer completes it once."""
    await cross(database, producer, users=400, weeks=30)
    victim = await trainers.start()
    child = await running_child(victim)
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    await asyncio.to_thread(psutil.wait_procs, [child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    await trainers.start()
    (event,) = await until(
        database,
        model_training_events,
        what="the verdict of the second trainer",
        holds=lambda rows: any(row["verdict"] for row in rows),
    )
    assert (event["status"], event["epochs"]) == (TrainingStatus.COMPLETED, [1])
    (job,) = await rows_of(database, training_jobs)
    assert (job["status"], job["attempts"]) == (JobStatus.DONE, 2)


async def test_a_stopped_trainer_gives_its_training_back_at_once(
    trainers: Trainers, database: Database, producer: BrokerProducer
) -> None:
    """A stopped trainer gives its training back at once."""
    await cross(database, producer, users=400, weeks=30)
    stopped = await trainers.start()
    child = await running_child(stopped)
    stopped.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(stopped.wait(), timeout=20) == 0
    assert not child.is_running()
    (job,) = await rows_of(database, training_jobs)
    assert (job["status"], job["attempts"]) == (JobStatus.QUEUED, 0)


async def test_a_killed_training_is_tried_again_by_the_same_trainer(
    trainers: Trainers, database: Database, producer: BrokerProducer
) -> None:
    """A killed training is tried again by the same trainer."""
    await cross(database, producer, users=400, weeks=30)
    trainer = await trainers.start()
    (await running_child(trainer)).kill()
    (event,) = await until(
        database,
        model_training_events,
        what="a verdict in spite of it",
        holds=lambda rows: any(row["verdict"] for row in rows),
    )
    assert event["status"] == TrainingStatus.COMPLETED
    assert trainer.returncode is None


async def test_a_trainer_that_lost_its_lease_stops_that_training_and_goes_on(
    trainers: Trainers, database: Database, producer: BrokerProducer
) -> None:
    """A trainer that lost its lease stops that training and goes on working."""
    await cross(database, producer, users=400, weeks=30)
    trainer = await trainers.start()
    child = await running_child(trainer)
    async with database.transaction() as work:
        over = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 1)
        await work.connection.execute(sa.update(training_jobs).values(lease_until=over))
        heir = await TrainingRepository(work.connection).lease("heir", models=FOUR_MODELS, lease_seconds=600)
    assert heir is not None
    await asyncio.to_thread(psutil.wait_procs, [child], timeout=20)
    assert not child.is_running()
    assert trainer.returncode is None
    (job,) = await rows_of(database, training_jobs)
    assert (job["leased_by"], job["status"]) == ("heir", JobStatus.RUNNING)


def order(model_type: str = "spending") -> TriggerTraining:
    """Return a command that is valid for half a minute."""
    now = SystemClock().now()
    return TriggerTraining(
        event_id=uuid4(),
        occurred_at=now,
        issuer="tester",
        expires_at=now + timedelta(seconds=30),
        model_type=model_type,
    )


async def test_a_crossing_that_was_quarantined_before_its_training_began_ends_without_one(
    trainers: Trainers, database: Database, producer: BrokerProducer, tmp_path: Path
) -> None:
    """A crossing that is quarantined before its training begins ends without one."""
    await make_champion(database, tmp_path)
    ranges = await archive(database, shop_history(users=30, weeks=3))
    message = crossing(epoch=1, ranges=ranges)
    await record_epoch(database, message)
    await record_quarantine(database, ranges, epoch=1)
    await producer.publish(THRESHOLD_REACHED.name, b"spending", encode(message))
    await trainers.start()
    (job,) = await until(
        database, training_jobs, what="the job to end", holds=lambda rows: any(row["status"] == JobStatus.DONE for row in rows)
    )  # fmt: skip
    assert job["epoch"] == 1
    (event,) = await rows_of(database, model_training_events)
    assert event["verdict"] == Verdict.CHAMPION_KEPT
    assert event["reasons"] == ["the data set of epoch 1 was quarantined by alice: a bot"]
    assert event["snapshot_id"] is None


async def test_a_training_by_command_is_queued_answered_and_audited(
    trainers: Trainers, database: Database, producer: BrokerProducer, own_broker: str
) -> None:
    """A training by command is queued, answered and audited."""
    await archive(database, shop_history(users=30, weeks=3))
    command, refused = order(), order("weather")
    await trainers.start()
    for message in (command, command, refused):
        await producer.publish(CONTROL.name, b"spending", encode(message))
    (job,) = await until(
        database,
        training_jobs,
        what="the job to end",
        holds=lambda rows: any(row["status"] == JobStatus.DONE for row in rows),
    )
    assert (job["command_id"], job["epoch"]) == (command.event_id, None)
    answers = await messages_of(
        own_broker, CONTROL_RESULTS, what="both answers",
        holds=lambda found: {command.event_id, refused.event_id} <= {getattr(message, "command_id", None) for message in found},
    )  # fmt: skip
    kinds = {getattr(message, "command_id", None): message for message in answers}
    accepted = kinds[command.event_id]
    assert isinstance(accepted, CommandSucceeded)
    assert accepted.result == {"job_id": str(job["id"])}
    assert isinstance(kinds[refused.event_id], CommandRejected)
    assert len(await rows_of(database, command_inbox)) == 2
    assert {row["outcome"] for row in await rows_of(database, audit_log)} == {"succeeded", "rejected"}
