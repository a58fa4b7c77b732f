"""The only place of this room that builds adapters: database, broker, store, health; and what keeps them together."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backends.broker.kafka import BrokerConsumer, BrokerProducer
from backends.broker.processor import Processor
from backends.clock import SystemClock
from backends.control import LONGEST_COMMAND_LIFE, CommandHandler
from backends.database.engine import create_engine
from backends.database.outbox import OutboxRelay
from backends.database.unit_of_work import Database
from backends.dead_letters import DeadLetterTopic
from backends.process import run_process
from backends.store.content import ContentStore
from backends.telemetry.health import HealthServer
from backends.telemetry.logs import configure_logs
from modelkit.registry import installed
from schemas.messages.control import TriggerTraining
from schemas.topics import CONTROL, THRESHOLD_REACHED
from schemas.vocabulary import Room
from trainers.consumer import GROUP, CrossingConsumer, TriggerTrainingExecution
from trainers.running.orchestrator import OrchestratorParts, TrainingOrchestrator
from trainers.running.queue import TrainingQueue
from trainers.snapshots.service import SnapshotService

if TYPE_CHECKING:
    from trainers.settings import TrainersSettings


class ReadingFrom:
    """Starts a groupless consumer a command's longest life ago."""

    def __init__(self, consumer: BrokerConsumer, now: Callable[[], dt.datetime]) -> None:
        self._consumer = consumer
        self._now = now

    async def start(self) -> None:
        """Connect and seek."""
        await self._consumer.start(since=self._now() - LONGEST_COMMAND_LIFE)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()


class Closing:
    """Gives the database's connections back at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self) -> None:
        """Nothing to begin: connections open when they are needed."""

    async def stop(self) -> None:
        """Close them."""
        await self._database.close()


async def run_trainer(settings: TrainersSettings) -> int:
    """Run one trainer until a signal or a failure; return the exit status."""
    instance = settings.instance or f"{Room.TRAINERS}-{os.getpid()}"
    configure_logs(process=instance, level=settings.log_level)
    clock = SystemClock()
    engine = create_engine(
        settings.database_url.get_secret_value(), application_name=f"fincoach-{instance}",
        idle_in_transaction_seconds=settings.idle_in_transaction_seconds,
    )  # fmt: skip
    database = Database(engine, Room.TRAINERS)
    producer = BrokerProducer(settings.brokers, client_id=instance)
    orchestrator = _orchestrator(settings, database, producer=producer, clock=clock, owner=instance)
    crossings = BrokerConsumer(settings.brokers, [THRESHOLD_REACHED], client_id=instance, group=GROUP)
    control = BrokerConsumer(settings.brokers, [CONTROL], client_id=f"{instance}-control")
    dead_letters = DeadLetterTopic(producer)
    crossing_handler = CrossingConsumer(orchestrator.queue, orchestrator.wake)
    commands = CommandHandler(
        database, clock, {TriggerTraining: TriggerTrainingExecution(orchestrator.wake)}, models=tuple(installed())
    )
    crossing_loop = Processor(crossings, crossing_handler.handle, dead_letters, name=GROUP)
    control_loop = Processor(control, commands.handle, dead_letters, name=f"{GROUP}-control")
    health = HealthServer(
        host=settings.host, port=settings.port, facts=lambda: _facts(orchestrator),
        readiness=lambda: {
            "database": orchestrator.database_answers, "crossings": crossing_loop.caught_up.is_set(), "control": control_loop.caught_up.is_set(),
        },
    )  # fmt: skip
    return await run_process(
        instance,
        parts=[Closing(database), producer, health, crossings, ReadingFrom(control, clock.now)],
        tasks=[crossing_loop.run(), control_loop.run(), OutboxRelay(database, producer).run(), orchestrator.run()],
    )


def _orchestrator(
    settings: TrainersSettings, database: Database, *, producer: BrokerProducer, clock: SystemClock, owner: str
) -> TrainingOrchestrator:
    store = ContentStore(settings.resolved_store_url)
    return TrainingOrchestrator(OrchestratorParts(
        database=database, queue=TrainingQueue(database, clock, settings, owner=owner, models=tuple(installed())), producer=producer, clock=clock, settings=settings,
        snapshots=SnapshotService(database, store, page_rows=settings.snapshot_page_rows, seed=settings.training_seed),
    ))  # fmt: skip


def _facts(orchestrator: TrainingOrchestrator) -> dict[str, Any]:
    return {"jobs": orchestrator.queue_counts, "running": orchestrator.running}
