"""Where a replica gets versions from: its own disk first, then the shared store; verified, loaded and warmed up. Blocking."""

from __future__ import annotations

import threading
from pathlib import Path

from backends.store.content import ContentStore
from backends.telemetry.logs import get_logger
from modelkit.interface import Runtime
from modelkit.manifest import open_artifact
from modelkit.registry import runtime_for
from modelkit.signing import TrustedKeys
from schemas.errors import ArtifactRejectedError
from schemas.messages.deployment import DeploymentState, VersionReference
from schemas.vocabulary import ModelType
from serving.desired_states import DesiredStateFiles

log = get_logger("serving.versions")


class VersionLibrary:
    """Loads versions, and keeps what the last desired states need in the replica's own folder."""

    def __init__(self, *, store_url: str, keys_folder: Path, replica_folder: Path) -> None:
        self._store_url = store_url
        self._keys_folder = keys_folder
        self._own = ContentStore(f"file://{(replica_folder / 'store').resolve()}")
        self._states = DesiredStateFiles(replica_folder / "states")
        self._lock = threading.Lock()

    def load(self, model_type: ModelType, reference: VersionReference) -> Runtime:
        """Return the verified, warmed-up runtime of ``reference``.

        Raises:
            ArtifactRejectedError: it is missing, corrupted, unsigned, or another model's.
        """
        files = self._files(reference)
        artifact = open_artifact(files, TrustedKeys.load(self._keys_folder))
        if artifact.manifest.model_type != model_type:
            raise ArtifactRejectedError(
                f"{reference.artifact_uri} is a model for {artifact.manifest.model_type}, not for {model_type}"
            )
        runtime = runtime_for(artifact)
        runtime.warm_up()
        return runtime

    def remember(self, state: DeploymentState) -> None:
        """Keep ``state`` on disk, after the artifacts that it names; remove those that only the model's former state needed.

        Followers of all models may call it at once: an artifact that another one has just fetched stays.
        """
        with self._lock:
            former = [kept for kept in self._states.load() if kept.model_type == state.model_type]
            for reference in (state.active, state.previous):
                if reference is not None:
                    self._keep(reference)
            self._states.save(state)
            self._forget({address for kept in former for address in _addresses(kept)})

    def remembered(self) -> list[DeploymentState]:
        """Return the kept desired states. Call it before anything loads: it removes artifacts that no state names."""
        with self._lock:
            self._forget(set(self._own.addresses("artifacts")))
            return self._states.load()

    def _forget(self, addresses: set[str]) -> None:
        needed = {address for kept in self._states.load() for address in _addresses(kept)}
        for address in addresses - needed:
            self._own.delete(address)

    def _files(self, reference: VersionReference) -> dict[str, bytes]:
        if reference.artifact_uri.rsplit("/", 1)[-1] != reference.artifact_digest:
            raise ArtifactRejectedError(
                f"{reference.artifact_uri} is not the address of digest {reference.artifact_digest}"
            )
        if self._own.exists(reference.artifact_uri):
            try:
                return self._own.get(reference.artifact_uri)
            except ArtifactRejectedError as error:
                log.warning("own_copy_damaged", address=reference.artifact_uri, error=str(error))
                self._own.delete(reference.artifact_uri)
        files = ContentStore(self._store_url).get(reference.artifact_uri)
        self._own.put("artifacts", files)
        return files

    def _keep(self, reference: VersionReference) -> None:
        if self._own.exists(reference.artifact_uri):
            return
        try:
            self._files(reference)
        except (ArtifactRejectedError, OSError) as error:
            log.warning("artifact_not_kept", address=reference.artifact_uri, error=str(error))


def _addresses(state: DeploymentState) -> set[str]:
    return {reference.artifact_uri for reference in (state.active, state.previous) if reference is not None}
