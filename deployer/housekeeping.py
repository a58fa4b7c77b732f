"""Removes artifacts that no rollback needs any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from backends.database.repositories.deployment import DeploymentRepository
from backends.telemetry.logs import get_logger
from deployer.retention import StoredVersion, expendable
from modelkit.registry import installed
from schemas.errors import RetryLaterError
from schemas.vocabulary import ModelType, SemanticVersion

if TYPE_CHECKING:
    from backends.database.unit_of_work import Database
    from deployer.store import ArtifactStorage

log = get_logger("deployer.housekeeping")


class ArtifactHousekeeping:
    """Applies the retention rule to the store; rows of versions stay for ever."""

    def __init__(
        self, database: Database, storage: ArtifactStorage, *, versions_kept: int, pause_seconds: float
    ) -> None:
        self._database = database
        self._storage = storage
        self._versions_kept = versions_kept
        self._pause_seconds = pause_seconds

    async def run(self) -> NoReturn:
        """Clean up now and then until cancelled."""
        while True:
            try:
                await self.clean_once()
            except (RetryLaterError, OSError) as error:  # database or store are away
                log.warning("housekeeping_delayed", error=repr(error))
            await asyncio.sleep(self._pause_seconds)

    async def clean_once(self) -> list[str]:
        """Delete the artifacts that nothing needs and return their addresses."""
        leaving = [address for model in installed() for address in await self._expendable(model)]
        for address in leaving:
            await self._storage.delete(address)
        if leaving:
            log.info("artifacts_deleted", addresses=leaving)
        return leaving

    async def _expendable(self, model_type: ModelType) -> list[str]:
        async with self._database.reading() as connection:
            repository = DeploymentRepository(connection)
            desired = await repository.desired(model_type)
            versions = await repository.versions(model_type)
        used = (
            {row.id for row in (desired.active, desired.previous) if row is not None} if desired is not None else set()
        )
        stored = [
            StoredVersion(SemanticVersion.parse(row.version), row.kind, row.address, row.id in used) for row in versions
        ]
        return expendable(stored, kept=self._versions_kept)
