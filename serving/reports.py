"""The reports of a replica: acknowledgements, heartbeats and alerts, published in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.telemetry.logs import get_logger
from backends.waiting import wait_at_most
from fincoach_events.identifiers import new_event_id
from schemas.codec import encode
from schemas.errors import RetryLaterError
from schemas.messages.alerts import AlertRaised
from schemas.messages.deployment import ReplicaStatus, ServedModel
from schemas.topics import ALERTS, REPLICA_STATUS
from schemas.vocabulary import ModelType, Service
from serving.registry import ServedVersions, VersionRegistry

if TYPE_CHECKING:
    from backends.broker.kafka import BrokerProducer
    from backends.clock import Clock

log = get_logger("serving.reports")
WAITING_ALERTS = 100
LAST_REPORT_SECONDS = 2.0


class ReplicaReporter:
    """Publishes the replica's status at every change and as a heartbeat; a tombstone when it leaves."""

    def __init__(
        self,
        registry: VersionRegistry,
        producer: BrokerProducer,
        clock: Clock,
        *,
        replica_id: str,
        heartbeat_seconds: float,
    ) -> None:
        self._registry = registry
        self._producer = producer
        self._clock = clock
        self._replica_id = replica_id
        self._heartbeat_seconds = heartbeat_seconds
        self._started_at = clock.now()
        self._errors: dict[ModelType, str] = {}
        self._alerts: deque[AlertRaised] = deque(maxlen=WAITING_ALERTS)
        self._changed = asyncio.Event()
        self.url = ""

    def swapped(self, model_type: ModelType) -> None:
        """Report that the registry serves another state of ``model_type``, without error."""
        self._errors.pop(model_type, None)
        self._changed.set()

    def failed(self, model_type: ModelType, detail: str, facts: Mapping[str, object]) -> None:
        """Report that a desired version cannot be served, and raise an alert."""
        self._errors[model_type] = detail
        self._alerts.append(
            AlertRaised(
                event_id=new_event_id(), occurred_at=self._clock.now(), name="version_not_loaded", subject=model_type,
                service=Service.SERVING, detail=f"replica {self._replica_id}: {detail}", facts=dict(facts),
            )
        )  # fmt: skip
        self._changed.set()

    def status(self) -> ReplicaStatus:
        """Return what the replica serves now."""
        models = {
            str(model_type): _served(served, self._errors.get(model_type))
            for model_type, served in self._registry.models.items()
        }
        return ReplicaStatus(
            event_id=new_event_id(), occurred_at=self._clock.now(), replica_id=self._replica_id, url=self.url,
            started_at=self._started_at, models=models, swaps=self._registry.swaps,
        )  # fmt: skip

    async def run(self) -> None:
        """Publish until cancelled; what cannot be published now follows with the next heartbeat."""
        while True:
            self._changed.clear()
            try:
                await self._publish()
            except RetryLaterError as error:
                log.warning("status_not_published", error=str(error))
            await wait_at_most(self._changed, self._heartbeat_seconds)

    async def start(self) -> None:
        """Do nothing: the first status follows when the tasks run."""

    async def stop(self) -> None:
        """Leave: publish a tombstone, if the broker takes it in time."""
        try:
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self._producer.publish(REPLICA_STATUS.name, self._replica_id.encode(), None)
        except (RetryLaterError, TimeoutError) as error:
            log.warning("tombstone_not_published", error=repr(error))

    async def _publish(self) -> None:
        await self._producer.publish(REPLICA_STATUS.name, self._replica_id.encode(), encode(self.status()))
        while self._alerts:
            alert = self._alerts[0]
            await self._producer.publish(ALERTS.name, alert.subject.encode(), encode(alert))
            self._alerts.popleft()


def _served(served: ServedVersions, error: str | None) -> ServedModel:
    reference = served.active.reference
    return ServedModel(
        version=reference.version, artifact_digest=reference.artifact_digest, kind=reference.kind, sequence=served.sequence,
        since=served.since, previous_version=served.previous.reference.version if served.previous else None, error=error,
    )  # fmt: skip
