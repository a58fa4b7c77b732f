"""Builds a deployer from its settings: the only place of the service that constructs adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.service_process import ServiceProcess
from deployer.agreement import TopicAgreement
from deployer.baselines import BaselineDeployment
from deployer.consumer import CandidateConsumer, ReplicaStatusConsumer
from deployer.housekeeping import ArtifactHousekeeping
from deployer.service import ModelDeploymentService
from deployer.settling import Settling
from deployer.store import ArtifactStorage
from modelkit.registry import installed
from schemas.messages.control import DeployModel, RollBackModel
from schemas.topics import MODEL_DEPLOYMENTS, MODEL_READY, REPLICA_STATUS
from schemas.vocabulary import Service

if TYPE_CHECKING:
    from backends.database.unit_of_work import Database
    from deployer.settings import DeployerSettings

GROUP = "fincoach-deployer"


async def deploy(settings: DeployerSettings) -> int:
    """Run a deployer until a signal; return the exit status."""
    process = _process(settings)
    database = process.open_database()
    relay = process.relay(database)
    storage = ArtifactStorage(settings.resolved_store_url)
    service = ModelDeploymentService(database, storage, process.clock, settings=settings)
    baselines = _baselines(process, database, storage)
    settling = Settling(_agreement(process, database), baselines)
    readers = (
        process.read(MODEL_READY, CandidateConsumer(service, relay).handle, name="deployer-candidates", group=GROUP),
        process.execute(
            database,
            {DeployModel: service.deploy_known, RollBackModel: service.rollback_model},
            models=tuple(installed()),
            name="deployer-control",
            relay=relay,
        ),
        process.read(REPLICA_STATUS, ReplicaStatusConsumer(database).handle, name="deployer-replicas"),
    )
    housekeeping = ArtifactHousekeeping(
        database, storage, versions_kept=settings.versions_kept, pause_seconds=settings.retention_seconds
    )

    def readiness() -> dict[str, bool]:
        return {**settling.readiness(), "consumers_connected": all(reader.is_connected for reader in readers)}

    process.health(readiness, settling.facts)
    process.do_first(settling.run)
    process.add_work(housekeeping.run, baselines.run)
    return await process.run()


async def reconcile(settings: DeployerSettings) -> list[str]:
    """Make the database's desired states the newest where the topic is ahead; return a sentence for each.

    A running deployer waits for this and publishes them; without one they are published at its next start.
    """
    process = _process(settings)
    database = process.open_database()
    baselines = _baselines(process, database, ArtifactStorage(settings.resolved_store_url))
    try:
        return await _agreement(process, database).reconcile(baselines)
    finally:
        await process.close()


def _process(settings: DeployerSettings) -> ServiceProcess:
    return ServiceProcess(Service.DEPLOYER, settings, linger_ms=0)


def _baselines(process: ServiceProcess, database: Database, storage: ArtifactStorage) -> BaselineDeployment:
    keys_folder = process.settings.resolved_keys_folder
    return BaselineDeployment(database, storage, process.clock, keys_folder=keys_folder)


def _agreement(process: ServiceProcess, database: Database) -> TopicAgreement:
    return TopicAgreement(
        database, process.producer, process.clock, new_consumer=lambda: process.consumer(MODEL_DEPLOYMENTS)
    )
