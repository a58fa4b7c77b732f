"""Builds a trainer from its settings: the only place of the service that constructs adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backends.service_process import ServiceProcess
from backends.store.content import ContentStore
from modelkit.registry import installed
from schemas.messages.control import TriggerTraining
from schemas.topics import THRESHOLD_REACHED
from schemas.vocabulary import Service
from trainers.consumer import GROUP, CrossingConsumer, TriggerTrainingExecution
from trainers.running.orchestrator import OrchestratorParts, TrainingOrchestrator
from trainers.running.queue import TrainingQueue
from trainers.snapshots.service import SnapshotService

if TYPE_CHECKING:
    from backends.database.unit_of_work import Database
    from trainers.settings import TrainersSettings


async def run_trainer(settings: TrainersSettings) -> int:
    """Run one trainer until a signal or a failure; return the exit status."""
    process = ServiceProcess(Service.TRAINERS, settings)
    database = process.open_database()
    relay = process.relay(database)
    orchestrator = _orchestrator(process, settings, database)
    crossing_consumer = CrossingConsumer(orchestrator.queue, orchestrator.wake)
    crossings = process.read(THRESHOLD_REACHED, crossing_consumer.handle, name=GROUP, group=GROUP)
    control = process.execute(
        database,
        {TriggerTraining: TriggerTrainingExecution(orchestrator.wake)},
        models=tuple(installed()),
        name=f"{GROUP}-control",
        relay=relay,
    )
    process.health(
        lambda: {
            "database": orchestrator.database_answers,
            "crossings": crossings.has_caught_up,
            "control": control.has_caught_up,
        },
        lambda: _facts(orchestrator),
    )
    process.add_work(orchestrator.run)
    return await process.run()


def _orchestrator(process: ServiceProcess, settings: TrainersSettings, database: Database) -> TrainingOrchestrator:
    store = ContentStore(settings.resolved_store_url)
    queue = TrainingQueue(database, process.clock, settings, owner=process.name, models=tuple(installed()))
    snapshots = SnapshotService(database, store, page_rows=settings.snapshot_page_rows, seed=settings.training_seed)
    return TrainingOrchestrator(
        OrchestratorParts(
            database=database,
            queue=queue,
            snapshots=snapshots,
            producer=process.producer,
            clock=process.clock,
            settings=settings,
        )
    )


def _facts(orchestrator: TrainingOrchestrator) -> dict[str, Any]:
    return {"jobs": orchestrator.queue_counts, "running": orchestrator.running}
