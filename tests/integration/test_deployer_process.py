"""Whole deployer processes and replicas on a real broker and database: from a candidate to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from backends.broker.connecting import connected, read_to_end
from backends.broker.interface import Record
from backends.broker.kafka import BrokerConsumer, BrokerProducer, create_topics
from backends.clock import SystemClock
from schemas import codec
from schemas.codec import encode
from schemas.errors import SettingsError
from schemas.messages.control import CommandResult, DeployModel, RollBackModel
from schemas.messages.deployment import DeploymentState
from schemas.messages.envelope import Message
from schemas.topics import (
    ALERTS,
    CONTROL,
    CONTROL_RESULTS,
    DEAD_LETTERS,
    MODEL_DEPLOYMENTS,
    MODEL_READY,
    PREDICTIONS,
    REPLICA_STATUS,
    Topic,
)
from tests.processes import RunningService, eventually, running
from tests.services import connect
from tests.versions import Installation, desired, ready

TOPICS = (MODEL_READY, MODEL_DEPLOYMENTS, REPLICA_STATUS, PREDICTIONS, CONTROL, CONTROL_RESULTS, ALERTS, DEAD_LETTERS)
USER = "6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11"
pytestmark = pytest.mark.timeout(240)


@dataclass
class System:
    """One installation: database, broker, folder."""

    database_url: str
    broker: str
    folder: Path
    producer: BrokerProducer

    @property
    def installation(self) -> Installation:
        """Return keys and store of the installation."""
        return Installation(self.folder)

    def deployer(self, **settings: object) -> contextlib.AbstractAsyncContextManager[RunningService]:
        """Run a deployer."""
        return running("deployer", self.folder, **self._settings("deployer-1", **settings))

    def replica(
        self, name: str = "replica-1", **settings: object
    ) -> contextlib.AbstractAsyncContextManager[RunningService]:
        """Run a replica."""
        return running("serving", self.folder, **self._settings(name, **settings))

    def _settings(self, instance: str, **settings: object) -> dict[str, object]:
        return {"database_url": self.database_url, "brokers": self.broker, "instance": instance, **settings}

    async def publish(self, topic: Topic, message: Message) -> None:
        """Put a message on a topic."""
        await self.producer.publish(topic.name, b"goal", encode(message))

    async def records(self, topic: Topic) -> list[Record]:
        """Return everything on a topic."""
        consumer = await connected(lambda: BrokerConsumer(self.broker, [topic], client_id="test"))
        try:
            return await read_to_end(consumer)
        finally:
            await consumer.stop()

    async def answer_to(self, command_id: UUID) -> CommandResult:
        """Return the answer to a command, once there is one."""

        async def look() -> CommandResult | None:
            found: list[CommandResult] = [
                codec.decode(CONTROL_RESULTS, item.value) for item in await self.records(CONTROL_RESULTS)
            ]
            return next((item for item in found if item.command_id == command_id), None)

        answer: CommandResult = await eventually(look, what="the answer to a command")
        return answer


@pytest.fixture
async def system(database_url: str, own_broker: str, tmp_path: Path) -> AsyncIterator[System]:
    """Give an empty installation."""
    await recreate_topics(own_broker)
    producer = BrokerProducer(own_broker, client_id="test", linger_ms=0)
    await producer.start()
    yield System(database_url, own_broker, tmp_path, producer)
    await producer.stop()


async def recreate_topics(address: str) -> None:
    """Delete the topics, and with them what groups committed, and create them anew."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    names = {topic.name for topic in TOPICS}

    async def present() -> set[str]:
        return names & set(await admin.list_topics())

    async def are_gone() -> bool:
        return not await present()

    async def are_created() -> bool:
        with contextlib.suppress(SettingsError):  # a deletion that is still under way
            await create_topics(address, wide_partitions=2, topics=TOPICS)
        return await present() == names

    try:
        await admin.delete_topics(sorted(await present()))
        await eventually(are_gone, what="deleted topics to be gone")
        await eventually(are_created, what="topics to be created")
    finally:
        await admin.close()


async def serves(replica: RunningService, version: str) -> bool:
    """Say whether the replica serves that version of goal."""
    response = await replica.get("/health/ready")
    served = response.json()["facts"]["models"].get("goal", {}) if response is not None else {}
    return bool(served.get("version") == version)


def roll_back() -> RollBackModel:
    """Return the command to roll the goal model back."""
    now = SystemClock().now()
    expires_at = now + dt.timedelta(minutes=5)
    return RollBackModel(event_id=uuid4(), occurred_at=now, issuer="tester", expires_at=expires_at, model_type="goal")


def deploy(version: str) -> DeployModel:
    """Return the command to deploy a version of the goal model."""
    now = SystemClock().now()
    expires_at = now + dt.timedelta(minutes=5)
    return DeployModel(
        event_id=uuid4(), occurred_at=now, issuer="tester", expires_at=expires_at, model_type="goal", version=version
    )


async def test_a_candidate_reaches_every_replica_and_goes_back_within_a_second(system: System) -> None:
    """A candidate reaches every replica, and a rollback reaches them within a second."""
    async with system.deployer() as deployer, system.replica() as one, system.replica("replica-2") as two:
        await asyncio.gather(deployer.ready(), one.ready(), two.ready())
        baseline = await one.post("/predict/goal", {"user_id": USER})
        assert (baseline.json()["kind"], baseline.json()["model_version"]) == ("baseline", "0.0.0")

        await system.publish(MODEL_READY, ready(system.installation.goal(0.8)))
        for replica in (one, two):
            await eventually(lambda replica=replica: serves(replica, "1.0.0"), what="version 1.0.0 on a replica")  # type: ignore[misc]
        learned = await one.post("/predict/goal", {"user_id": USER})
        assert (learned.json()["kind"], learned.json()["probability"]) == ("learned", pytest.approx(0.8))

        order, began = roll_back(), time.perf_counter()
        await system.publish(CONTROL, order)
        for replica in (one, two):
            await eventually(lambda replica=replica: serves(replica, "0.0.0"), what="the baseline on a replica")  # type: ignore[misc]
        assert time.perf_counter() - began < 1.0
        assert (
            await system.answer_to(order.event_id)
        ).detail == "goal 0.0.0 is served instead of 1.0.0 (desired state 3)"
        await _replicas_are_noted(system)
        await _predictions_are_logged(system, {baseline.json()["prediction_id"], learned.json()["prediction_id"]})


async def _replicas_are_noted(system: System) -> None:
    connection = await connect(system.database_url)

    async def look() -> bool:
        rows = await connection.fetch(
            "SELECT replica_id, sequence FROM replica_acknowledgements WHERE model_type = 'goal'"
        )
        return {(row["replica_id"], row["sequence"]) for row in rows} >= {("replica-1", 3), ("replica-2", 3)}

    try:
        await eventually(look, what="both replicas' acknowledgements of desired state 3")
    finally:
        await connection.close()


async def _predictions_are_logged(system: System, wanted: set[str]) -> None:
    async def look() -> bool:
        logged = [codec.decode(PREDICTIONS, item.value) for item in await system.records(PREDICTIONS)]
        return wanted <= {str(item.event_id) for item in logged}

    await eventually(look, what="the predictions on their topic")


async def test_a_replica_starts_from_its_own_disk_without_broker_and_database(system: System) -> None:
    """A restarted replica serves what it served last, while Kafka and Postgres are away."""
    async with system.deployer() as deployer, system.replica() as replica:
        await asyncio.gather(deployer.ready(), replica.ready())
        await system.publish(MODEL_READY, ready(system.installation.goal(0.8)))
        await eventually(lambda: serves(replica, "1.0.0"), what="version 1.0.0")
        await replica.end(signal.SIGKILL)
    away = {
        "brokers": "127.0.0.1:1",
        "database_url": "postgresql+asyncpg://nobody@127.0.0.1:1/none",
        "store_url": "memory://empty",
    }
    async with system.replica(**away) as replica:
        await replica.ready()
        answer = (await replica.post("/predict/goal", {"user_id": USER})).json()
        assert (answer["model_version"], answer["state"]) == ("1.0.0", "unavailable")
        assert await replica.end() == 0


async def test_a_replica_with_nothing_waits_and_says_so(system: System) -> None:
    """A replica without versions is not ready, and answers with a sentence."""
    async with system.replica() as replica:
        await replica.live()
        response = await replica.get("/v2/health/ready")
        assert response is not None
        assert (response.status_code, response.json()["checks"]["goal"]) == (503, False)
        refused = await replica.post("/predict/goal", {"user_id": USER})
        assert (refused.status_code, "no version of goal is loaded yet" in refused.json()["error"]) == (503, True)


async def test_a_stopped_replica_leaves_a_tombstone(system: System) -> None:
    """A replica that stops leaves a tombstone, so that it does not look silent."""
    async with system.deployer() as deployer, system.replica() as replica:
        await asyncio.gather(deployer.ready(), replica.ready())
        assert await replica.end() == 0
        last = (await system.records(REPLICA_STATUS))[-1]
        assert (last.key, last.value) == (b"replica-1", b"")


async def test_a_desired_version_that_cannot_be_loaded_leaves_the_old_one_serving(system: System) -> None:
    """A version that cannot be loaded raises an alert, and the old one goes on serving."""
    async with system.deployer() as deployer, system.replica() as replica:
        await asyncio.gather(deployer.ready(), replica.ready())
        reference = system.installation.goal(0.8)
        system.installation.store.delete(reference.artifact_uri)
        await system.publish(MODEL_DEPLOYMENTS, desired(7, reference))

        async def alerted() -> bool:
            return any(
                codec.decode(ALERTS, item.value).name == "version_not_loaded" for item in await system.records(ALERTS)
            )

        await eventually(alerted, what="the alert about the version that cannot be loaded")
        answer = (await replica.post("/predict/goal", {"user_id": USER})).json()
        assert answer["model_version"] == "0.0.0"


async def test_a_deployer_that_is_killed_carries_on_where_it_was(system: System) -> None:
    """A candidate and a command that arrive while no deployer runs are handled once, by the next one."""
    async with system.deployer() as deployer:
        await deployer.ready()
        await deployer.end(signal.SIGKILL)
    order = deploy("9.9.9")
    await system.publish(MODEL_READY, ready(system.installation.goal(0.8)))
    await system.publish(CONTROL, order)
    async with system.deployer() as deployer:
        await deployer.ready()
        assert "there is no version 9.9.9" in (await system.answer_to(order.event_id)).detail

        async def promoted() -> bool:
            return (await _last_goal_state(system)).sequence == 2

        await eventually(promoted, what="the promotion of the waiting candidate")


async def _last_goal_state(system: System) -> DeploymentState:
    states: list[DeploymentState] = [
        codec.decode(MODEL_DEPLOYMENTS, item.value) for item in await system.records(MODEL_DEPLOYMENTS)
    ]
    return next(state for state in reversed(states) if state.model_type == "goal")


async def test_a_wiped_topic_is_filled_again_from_the_database(system: System) -> None:
    """A wiped topic is filled again from the database."""
    async with system.deployer() as deployer:
        await deployer.ready()
    await recreate_topics(system.broker)
    async with system.deployer() as deployer, system.replica("replica-new") as replica:
        await asyncio.gather(deployer.ready(), replica.ready())
        assert (await _last_goal_state(system)).sequence == 1


async def test_a_restored_database_publishes_nothing_until_a_person_decides(system: System) -> None:
    """A restored database publishes nothing until a person decides."""
    installation = system.installation
    await system.publish(MODEL_DEPLOYMENTS, desired(41, installation.goal(0.8)))
    async with system.deployer() as deployer:
        await deployer.live()

        async def says_so() -> bool:
            response = await deployer.get("/health/ready")
            return response is not None and response.json()["checks"]["topic_not_ahead_of_database"] is False

        await eventually(says_so, what="the deployer to refuse")
        assert (await _last_goal_state(system)).sequence == 41
        alerts = [codec.decode(ALERTS, item.value) for item in await system.records(ALERTS)]
        assert {(item.name, item.subject) for item in alerts} == {("topic_ahead_of_database", "goal")}
        await _reconcile(system)
        await deployer.ready()
        state = await _last_goal_state(system)
        assert (state.sequence, state.active.version) == (42, "0.0.0")


async def _reconcile(system: System) -> None:
    from deployer.bootstrap import reconcile  # noqa: PLC0415
    from deployer.settings import DeployerSettings  # noqa: PLC0415

    settings = DeployerSettings(folder=system.folder, brokers=system.broker, database_url=system.database_url)  # type: ignore[arg-type]
    sentences = await reconcile(settings)
    assert sentences == ["goal: the database knew no version; its baseline is desired state 42 now"]
