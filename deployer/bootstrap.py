"""The only place of this room that constructs adapters."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from backends.broker.kafka import BrokerConsumer, BrokerProducer
from backends.clock import SystemClock
from backends.control import LONGEST_COMMAND_LIFE, CommandHandler
from backends.database.engine import create_engine
from backends.database.outbox import OutboxRelay
from backends.database.unit_of_work import Database
from backends.dead_letters import DeadLetterTopic
from backends.process import run_process
from backends.telemetry.health import HealthServer
from backends.telemetry.logs import configure_logs
from deployer.baselines import BaselineDeployment
from deployer.consumer import CandidateConsumer, ReplicaStatusConsumer
from deployer.housekeeping import ArtifactHousekeeping
from deployer.room import DeployerRoom, Reader
from deployer.service import ModelDeploymentService
from deployer.standing import TopicStanding
from deployer.store import ArtifactShelf
from modelkit.registry import installed
from schemas.messages.control import DeployModel, RollBackModel
from schemas.topics import CONTROL, MODEL_DEPLOYMENTS, MODEL_READY, REPLICA_STATUS, Topic
from schemas.vocabulary import Room

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from deployer.settings import DeployerSettings

GROUP = "fincoach-deployer"


class Deployer:
    """All parts of one deployer process."""

    def __init__(self, settings: DeployerSettings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        name = settings.instance_name
        engine = create_engine(
            settings.database_url.get_secret_value(),
            application_name=name,
            idle_in_transaction_seconds=settings.idle_in_transaction_seconds,
        )
        self.database = Database(engine, Room.DEPLOYER)
        self.producer = BrokerProducer(settings.brokers, client_id=name, linger_ms=0)
        self.shelf = ArtifactShelf(settings.resolved_store_url)
        self.relay = OutboxRelay(self.database, self.producer)
        self.baselines = BaselineDeployment(
            self.database, self.shelf, self._clock, keys_folder=settings.resolved_keys_folder
        )
        self.standing = TopicStanding(
            self.database, self.producer, self._clock, new_consumer=lambda: self._consumer(MODEL_DEPLOYMENTS)
        )
        self.service = ModelDeploymentService(self.database, self.shelf, self._clock, settings=settings)
        self._commands = CommandHandler(
            self.database,
            self._clock,
            {DeployModel: self.service.deploy_known, RollBackModel: self.service.rollback_model},
            models=tuple(installed()),
        )

    def room(self) -> DeployerRoom:
        """Return the process's life; nothing connects yet."""
        housekeeping = ArtifactHousekeeping(
            self.database,
            self.shelf,
            versions_kept=self._settings.versions_kept,
            pause_seconds=self._settings.retention_seconds,
        )
        candidates = CandidateConsumer(self.service, self.relay)
        readers = (
            Reader("deployer-candidates", lambda: self._consumer(MODEL_READY, group=GROUP), candidates.handle),
            Reader("deployer-control", lambda: self._consumer(CONTROL), self._command, since=self._oldest_command),
            Reader(
                "deployer-replicas", lambda: self._consumer(REPLICA_STATUS), ReplicaStatusConsumer(self.database).handle
            ),
        )
        return DeployerRoom(
            self.producer, self.standing, self.baselines, readers=readers, beside=(self.relay.run, housekeeping.run),
            dead_letters=DeadLetterTopic(self.producer),
        )  # fmt: skip

    async def close(self) -> None:
        """Disconnect from everything."""
        await self.producer.stop()
        await self.database.close()

    async def _command(self, record: Record) -> None:
        await self._commands.handle(record)
        self.relay.wake()

    def _oldest_command(self) -> dt.datetime:
        return self._clock.now() - LONGEST_COMMAND_LIFE

    def _consumer(self, topic: Topic, *, group: str | None = None) -> BrokerConsumer:
        return BrokerConsumer(self._settings.brokers, [topic], client_id=self._settings.instance_name, group=group)


async def deploy(settings: DeployerSettings) -> int:
    """Run a deployer until a signal; return the exit status."""
    configure_logs(process=settings.instance_name, level=settings.log_level)
    deployer = Deployer(settings)
    room = deployer.room()
    health = HealthServer(host=settings.host, port=settings.port, readiness=room.readiness, facts=room.facts)
    try:
        return await run_process(settings.instance_name, parts=(health,), tasks=(room.run(),))
    finally:
        await deployer.close()


async def reconcile(settings: DeployerSettings) -> list[str]:
    """Make the database's desired states the newest where the topic is ahead; return a sentence for each.

    A running deployer waits for this and publishes them; without one they are published at its next start.
    """
    deployer = Deployer(settings)
    try:
        return await deployer.standing.reconcile(deployer.baselines)
    finally:
        await deployer.close()
