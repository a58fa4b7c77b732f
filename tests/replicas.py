"""The inside of a replica without its process: real versions, registry and application; no broker, a database that a test writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from backends.broker.kafka import BrokerProducer
from backends.clock import Clock
from backends.database.repositories.states import StoredState
from schemas.messages.deployment import DeploymentState, VersionReference
from schemas.messages.predictions import PredictionServed
from serving.bootstrap import decoded
from serving.cache import ExpiringCache
from serving.endpoints import ReplicaApplication
from serving.follower import ModelFollower
from serving.prediction_log import PredictionLog
from serving.registry import VersionRegistry
from serving.reports import ReplicaReporter
from serving.service import PredictionService
from serving.user_states import UserStateReader
from serving.versions import VersionLibrary
from tests.four_models import FOUR_MODELS
from tests.versions import Installation, desired


@dataclass
class WrittenStates:
    """User states that a test writes."""

    rows: dict[UUID, StoredState] = field(default_factory=dict)

    async def read(self, user_id: UUID) -> StoredState | None:
        """Return what was written."""
        return self.rows.get(user_id)


class Replica:
    """A replica whose parts a test may look into."""

    def __init__(self, folder: Path, clock: Clock, *, largest_body_bytes: int = 65_536) -> None:
        self.installation = Installation(folder)
        self.installation.key  # noqa: B018 - makes the key pair
        self.states = WrittenStates()
        self.registry = VersionRegistry()
        self.library = VersionLibrary(
            store_url=self.installation.store_url,
            keys_folder=self.installation.keys_folder,
            replica_folder=folder / "replica",
        )
        producer = BrokerProducer("127.0.0.1:1", client_id="nobody")  # never started: every publication is "later"
        self.reporter = ReplicaReporter(self.registry, producer, clock, replica_id="replica-1", heartbeat_seconds=5)
        self.log = PredictionLog(producer, limit=100_000)
        reader = UserStateReader(
            self.states, decoded, clock, cache=ExpiringCache(size=100, ttl_seconds=0.0), timeout_seconds=1.0
        )
        service = PredictionService(self.registry, reader, self.log, clock=clock, replica_id="replica-1")
        self.application: Any = ReplicaApplication(
            self.registry, service, replica_id="replica-1", largest_body_bytes=largest_body_bytes
        )
        self.followers = {
            model_type: ModelFollower(model_type, self.registry, self.library, reporter=self.reporter, clock=clock)
            for model_type in FOUR_MODELS
        }

    async def serve_baselines(self) -> None:
        """Serve version 0 of every model."""
        for model_type in FOUR_MODELS:
            await self.apply(desired(1, self.installation.baseline(model_type), model_type=model_type))

    async def apply(self, state: DeploymentState) -> None:
        """Serve a desired state."""
        follower = self.followers[state.model_type]
        assert follower.desire(state)
        await follower.apply(state)

    async def serve_goal(
        self, sequence: int, active: VersionReference, previous: VersionReference | None = None
    ) -> None:
        """Serve a goal version."""
        await self.apply(desired(sequence, active, previous=previous))

    def client(self) -> httpx.AsyncClient:
        """Return a client that calls the application directly."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.application), base_url="http://replica")

    def logged(self) -> list[PredictionServed]:
        """Return what waits to be logged."""
        return list(self.log._waiting)
