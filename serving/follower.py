"""Brings a replica to the desired state of one model: load beside, warm up, swap one reference, keep the previous one warm."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from backends.waiting import wait_at_most
from modelkit.interface import Runtime
from schemas.messages.deployment import DeploymentState, VersionReference
from schemas.vocabulary import ModelType
from serving.registry import LoadedVersion, ServedVersions, VersionRegistry

if TYPE_CHECKING:
    from backends.clock import Clock
    from serving.reports import ReplicaReporter

log = get_logger("serving.follower")
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0


class VersionSource(Protocol):
    """Where versions come from. All methods block: they are called from threads."""

    def load(self, model_type: ModelType, reference: VersionReference) -> Runtime:
        """Return the verified, warmed-up runtime of ``reference``.

        Raises:
            ArtifactRejectedError: it is missing, corrupted or unsigned.
        """

    def remember(self, state: DeploymentState) -> None:
        """Keep ``state`` and what it needs on the replica's disk."""


class ModelFollower:
    """Follows the desired states of one model. Only the newest one counts; a version that fails to load is tried again while it is desired."""

    def __init__(
        self,
        model_type: ModelType,
        registry: VersionRegistry,
        source: VersionSource,
        *,
        reporter: ReplicaReporter,
        clock: Clock,
    ) -> None:
        self._model_type = model_type
        self._registry = registry
        self._source = source
        self._reporter = reporter
        self._clock = clock
        self._desired: DeploymentState | None = None
        self._changed = asyncio.Event()

    @property
    def desired_sequence(self) -> int:
        """Return the sequence of the newest desired state; 0 before the first."""
        return 0 if self._desired is None else self._desired.sequence

    def desire(self, state: DeploymentState) -> bool:
        """Take ``state`` as what is wanted; lower sequences and repeats are ignored (False)."""
        if state.sequence <= self.desired_sequence:
            return False
        self._desired = state
        self._changed.set()
        return True

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._changed.wait()
            await self._follow()

    async def _follow(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while self._desired is not None:
            self._changed.clear()
            state = self._desired
            try:
                await self.apply(state)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a version must not stop those that serve
                self._report_failure(state, error)
                await wait_at_most(self._changed, delay)
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)
            else:
                return

    async def apply(self, state: DeploymentState) -> None:
        """Serve ``state``: returns when its active version answers requests and the previous one is warm.

        Raises:
            ArtifactRejectedError: the active version cannot be loaded; what served before goes on serving.
        """
        active = await self._loaded(state.active)
        self._swap(state, active, self._known(state.previous))
        await asyncio.to_thread(self._source.remember, state)
        await self._warm_previous(state, active)

    def _swap(self, state: DeploymentState, active: LoadedVersion, previous: LoadedVersion | None) -> None:
        before = self._registry.models.get(self._model_type)
        same = before is not None and before.active is active
        since = before.since if before is not None and same else self._clock.now()
        served = ServedVersions(active=active, previous=previous, sequence=state.sequence, since=since)
        self._registry.swap(self._model_type, served)
        self._reporter.swapped(self._model_type)
        if before is not None and not same:
            METRICS.serving_swaps.labels(model_type=self._model_type).inc()
        log.info(
            "version_served", model_type=self._model_type, version=state.active.version, sequence=state.sequence,
            kind=state.active.kind, previous=state.previous.version if state.previous else None,
        )  # fmt: skip

    async def _warm_previous(self, state: DeploymentState, active: LoadedVersion) -> None:
        if state.previous is None or self._known(state.previous) is not None:
            return
        try:
            previous = await self._loaded(state.previous)
        except Exception as error:  # noqa: BLE001 - the active version serves; a roll-back would load again
            log.warning(
                "previous_not_warm", model_type=self._model_type, version=state.previous.version, error=repr(error)
            )
            return
        self._swap(state, active, previous)

    async def _loaded(self, reference: VersionReference) -> LoadedVersion:
        known = self._known(reference)
        if known is not None:
            return known
        return LoadedVersion(reference, await asyncio.to_thread(self._source.load, self._model_type, reference))

    def _known(self, reference: VersionReference | None) -> LoadedVersion | None:
        served = self._registry.models.get(self._model_type)
        if reference is None or served is None:
            return None
        return next((version for version in served.versions if version.reference == reference), None)

    def _report_failure(self, state: DeploymentState, error: Exception) -> None:
        METRICS.serving_swap_failures.labels(model_type=self._model_type).inc()
        version = state.active.version
        log.warning("version_not_loaded", model_type=self._model_type, version=version, error=repr(error))
        self._reporter.failed(
            self._model_type,
            f"cannot load {self._model_type} {version}: {error}",
            {"version": version, "sequence": state.sequence},
        )
