"""Version 0: each model answers from its signed trivial baseline until something is learned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from backends.database.repositories.deployment import Decision, DeploymentRepository, NewVersion
from backends.database.repositories.models import ModelRepository
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from deployer.announcements import announce, desired_state
from deployer.numbering import traits_of, with_traits
from deployer.versions import BASELINE_VERSION
from modelkit.installation_key import installation_key
from modelkit.manifest import open_artifact
from modelkit.registry import definition_of, installed
from modelkit.version_zero import baseline_artifact
from schemas.errors import RetryLaterError
from schemas.vocabulary import ArtifactKind, ModelType

if TYPE_CHECKING:
    from pathlib import Path

    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork
    from deployer.store import ArtifactStorage

log = get_logger("deployer.baselines")
LOOK_AGAIN_SECONDS = 2.0
AWAY: tuple[type[Exception], ...] = (RetryLaterError, OSError)  # database, broker or store


class BaselineDeployment:
    """Gives each model without a desired state its version 0."""

    def __init__(self, database: Database, storage: ArtifactStorage, clock: Clock, *, keys_folder: Path) -> None:
        self._database = database
        self._storage = storage
        self._clock = clock
        self._keys_folder = keys_folder
        self.unregistered: tuple[ModelType, ...] = ()

    async def ensure(self) -> list[ModelType]:
        """Deploy what is missing and return it. May be called again, and by several deployers at once: one of them acts.

        A model that streams has not registered yet is left for the next call: it may come with a later start of a worker, and
        the others do not wait for it.
        """
        async with self._database.reading() as connection:
            present = await DeploymentRepository(connection).all_desired()
            registered = await ModelRepository(connection).known()
        self.unregistered = tuple(model for model in installed() if model not in registered)
        missing = [model for model in installed() if model in registered and model not in present]
        return [model for model in missing if await self.deploy(model)]

    async def run(self) -> None:
        """Give a version 0 to models that are registered later, until there are none; then wait for ever."""
        while self.unregistered:
            log.info("models_not_registered", models=self.unregistered)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            try:
                await self.ensure()
            except AWAY as error:
                log.warning("baselines_delayed", error=repr(error))
        await asyncio.get_running_loop().create_future()

    async def deploy(self, model_type: ModelType, *, sequence: int = 1) -> bool:
        """Build, sign, store and deploy the baseline of one model; False when another deployer was faster."""
        new = await self._stored(model_type)
        async with self._database.transaction() as work:
            repository = DeploymentRepository(work.connection)
            version = await repository.add_version(new)
            if version is None or not await repository.begin(model_type, version, sequence=sequence):
                return False
            await self._announce(work, model_type)
        log.info("baseline_deployed", model_type=model_type)
        return True

    async def _stored(self, model_type: ModelType) -> NewVersion:
        key = await asyncio.to_thread(installation_key, self._keys_folder)
        files = await asyncio.to_thread(baseline_artifact, definition_of(model_type), key, self._clock.now())
        address = await self._storage.put(files)
        manifest = open_artifact(files, key.trusted()).manifest
        return NewVersion(
            model_type=model_type, version=str(BASELINE_VERSION), kind=ArtifactKind.BASELINE, address=address,
            artifact_digest=address.rsplit("/", 1)[-1], metadata=with_traits(traits_of(manifest)),
        )  # fmt: skip

    async def _announce(self, work: UnitOfWork, model_type: ModelType) -> None:
        repository = DeploymentRepository(work.connection)
        desired = await repository.desired(model_type)
        if desired is None:
            return
        await announce(work, desired_state(desired, now=self._clock.now()))
        decision = Decision(
            model_type=model_type, decision="baseline", reason="the first version of a model is its trivial baseline",
            version=desired.active.version, sequence=desired.sequence,
        )  # fmt: skip
        await repository.add_decision(decision)
        await work.audit(
            actor="deployer",
            action="baseline",
            subject=model_type,
            outcome="succeeded",
            details={"version": desired.active.version},
        )
        METRICS.deployer_decisions.labels(model_type=model_type, decision="baseline").inc()
