"""The artifact store as the deployer uses it: blocking calls in threads, and a second copy of what a rollback needs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backends.store.content import ContentStore
from schemas.errors import ArtifactRejectedError

ARTIFACTS, BACKUPS = "artifacts", "backups"


class ArtifactStorage:
    """Artifacts under ``artifacts/<digest>``, their backups under ``backups/<digest>``."""

    def __init__(self, store_url: str) -> None:
        self.store_url = store_url

    async def put(self, files: Mapping[str, bytes]) -> str:
        """Store an artifact and return its address."""
        return await asyncio.to_thread(lambda: self._store().put(ARTIFACTS, files))

    async def back_up(self, address: str) -> str:
        """Copy an artifact and return the backup's address; a second call changes nothing.

        Raises:
            ArtifactRejectedError: it is missing or damaged, and so is its backup.
        """
        return await asyncio.to_thread(self._back_up, address)

    async def is_usable(self, address: str) -> bool:
        """Say whether an artifact is undamaged; a missing or damaged one is first restored from its backup, if there is one."""
        try:
            await self.back_up(address)
        except ArtifactRejectedError:
            return False
        return True

    async def delete(self, address: str) -> None:
        """Remove an artifact and its backup."""
        await asyncio.to_thread(self._delete, address)

    def _back_up(self, address: str) -> str:
        store, backup = self._store(), _backup(address)
        try:
            files = store.get(address)
        except ArtifactRejectedError:
            files = store.get(backup)
            store.delete(address)
            store.put(ARTIFACTS, files)
        return store.put(BACKUPS, files)

    def _delete(self, address: str) -> None:
        store = self._store()
        store.delete(address)
        store.delete(_backup(address))

    def _store(self) -> ContentStore:
        return ContentStore(self.store_url)


def _backup(address: str) -> str:
    return f"{BACKUPS}/{address.rsplit('/', 1)[-1]}"
