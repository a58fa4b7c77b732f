"""Which versions a replica has loaded and serves; requests lease the version that they use.

Everything here happens on the event loop's thread: a swap is the exchange of one reference, no lock is needed
and no request sees half of it. A version that is swapped out closes when its last lease is given back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from modelkit.interface import Runtime
from schemas.messages.deployment import VersionReference
from schemas.vocabulary import ModelType
from serving.errors import NotLoadedError, RequestError


class LoadedVersion:
    """A loaded version that counts who uses it."""

    __slots__ = ("_leases", "_retired", "closed", "reference", "runtime")

    def __init__(self, reference: VersionReference, runtime: Runtime) -> None:
        self.reference = reference
        self.runtime = runtime
        self.closed = False
        self._leases = 0
        self._retired = False

    @property
    def leases(self) -> int:
        """Return how many requests use the version now."""
        return self._leases

    def acquire(self) -> None:
        """Take a lease; each must be given back once with :meth:`release`."""
        self._leases += 1

    def release(self) -> None:
        """Give a lease back; the last one of a retired version closes it."""
        self._leases -= 1
        self._close_if_unused()

    def retire(self) -> None:
        """Close the version as soon as no request uses it; no new one will. May be called twice."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and self._leases == 0 and not self.closed:
            self.closed = True
            self.runtime.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersions:
    """What a replica serves for one model: the active version, the warm previous one, and the desired state behind it."""

    active: LoadedVersion
    previous: LoadedVersion | None
    sequence: int
    since: dt.datetime

    @property
    def versions(self) -> tuple[LoadedVersion, ...]:
        """Return all loaded versions, the active one first."""
        return (self.active,) if self.previous is None else (self.active, self.previous)


class VersionRegistry:
    """The loaded versions of all models."""

    def __init__(self) -> None:
        self._models: Mapping[ModelType, ServedVersions] = {}
        self.swaps = 0

    @property
    def models(self) -> Mapping[ModelType, ServedVersions]:
        """Return what is served; the mapping never changes, a later call may return another one."""
        return self._models

    def lease(self, model_type: ModelType, version: str | None = None) -> LoadedVersion:
        """Return the active version, or the loaded one of that number, leased: the caller must ``release`` it.

        Raises:
            NotLoadedError: no version of the model is loaded yet.
            RequestError: that version is not loaded.
        """
        served = self._models.get(model_type)
        if served is None:
            raise NotLoadedError(model_type)
        chosen = served.active if version is None else _chosen(served, model_type, version)
        chosen.acquire()
        return chosen

    def swap(self, model_type: ModelType, served: ServedVersions) -> None:
        """Serve ``served`` from now on; versions that it no longer holds drain and close."""
        before = self._models.get(model_type)
        self._models = {**self._models, model_type: served}
        if before is None:
            return
        if before.active is not served.active:
            self.swaps += 1
        for version in before.versions:
            if version not in served.versions:
                version.retire()

    def close(self) -> None:
        """Retire everything; used when the replica stops."""
        models, self._models = self._models, {}
        for served in models.values():
            for version in served.versions:
                version.retire()


def _chosen(served: ServedVersions, model_type: ModelType, version: str) -> LoadedVersion:
    for loaded in served.versions:
        if loaded.reference.version == version:
            return loaded
    known = ", ".join(loaded.reference.version for loaded in served.versions)
    raise RequestError(404, f"version {version} of {model_type} is not loaded; loaded are {known}")
