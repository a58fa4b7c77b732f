"""The edge to Kafka: candidates and statuses of replicas. Decode and call, nothing else; commands come through backends.control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.database.repositories.deployment import DeploymentRepository
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas import codec
from schemas.messages.training import ModelReady
from schemas.topics import MODEL_READY, REPLICA_STATUS

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.database.outbox import OutboxRelay
    from backends.database.unit_of_work import Database
    from deployer.service import ModelDeploymentService

log = get_logger("deployer.consumer")


class CandidateConsumer:
    """Handles the model-ready topic."""

    def __init__(self, service: ModelDeploymentService, relay: OutboxRelay) -> None:
        self._service = service
        self._relay = relay

    async def handle(self, record: Record) -> None:
        """Decide about a candidate; a failed training is only counted and logged.

        Raises:
            InvalidMessageError: the record is neither, or the tables cannot hold the decision.
            RetryLaterError: the decision has to be taken again later.
        """
        message = codec.decode(MODEL_READY, record.value)
        if isinstance(message, ModelReady):
            await self._service.consider(message)
            self._relay.wake()
            return
        METRICS.deployer_decisions.labels(model_type=message.model_type, decision="training_failed").inc()
        log.info("training_failed", model_type=message.model_type, reason=message.reason, will_retry=message.will_retry)


class ReplicaStatusConsumer:
    """Handles the replica-status topic: every deployer reads all of it, and the tables record each status once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def handle(self, record: Record) -> None:
        """Record what a replica serves, or that it left.

        Raises:
            InvalidMessageError: the record is no status, or one that the tables cannot hold.
            RetryLaterError: the database is away.
        """
        status = codec.decode(REPLICA_STATUS, record.value) if record.value else None
        async with self._database.transaction() as work:
            repository = DeploymentRepository(work.connection)
            if status is None:
                await repository.forget_replica((record.key or b"").decode(errors="replace"), at=record.timestamp)
            else:
                await repository.see_replica(status, at=record.timestamp)
