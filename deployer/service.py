"""Which version is served: candidates, commands and roll-backs become desired states, each in one transaction.

The transaction holds the version, the moved desired state with the next sequence, the decision with its reason, the
announcement in the outbox and the audit row. It compares the sequence that was read before the work began: an owner
that was frozen meanwhile fails the compare and starts over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from backends.database.repositories.deployment import (
    Decision,
    DeploymentRepository,
    DesiredRow,
    Move,
    VersionRow,
)
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from deployer.announcements import alert, announce, desired_state
from deployer.gates import objection, stale_champion
from deployer.numbering import numbered
from deployer.trial import try_in_child
from deployer.verification import TrialOrder, TrialReport
from deployer.versions import version_before
from schemas.errors import ArtifactRejectedError, CommandRejectedError, RetryLaterError
from schemas.messages.control import CommandOutcome, DeployModel, RollBackModel
from schemas.messages.training import ModelReady
from schemas.vocabulary import ArtifactKind, ModelType, SemanticVersion

if TYPE_CHECKING:
    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork
    from deployer.settings import DeployerSettings
    from deployer.store import ArtifactStorage

log = get_logger("deployer.service")
ACTOR = "deployer"


class ModelDeploymentService:
    """Deploys, rolls back, verifies and backs up versions."""

    def __init__(
        self, database: Database, storage: ArtifactStorage, clock: Clock, *, settings: DeployerSettings
    ) -> None:
        self._database = database
        self._storage = storage
        self._clock = clock
        self._settings = settings

    async def consider(self, ready: ModelReady) -> None:
        """Decide about a candidate: verify it, look at its evidence, then serve it or refuse it with a reason. May be called again.

        Raises:
            InvalidMessageError: the database cannot hold the decision.
            RetryLaterError: database or store are away, the baseline is not deployed yet, or another deployer was faster.
        """
        try:
            current = await self._current(ready.model_type)
            if await self._is_decided(ready, current):
                return
            report = await self.validate_deployment(ready)
            reason = report.objection or objection(ready.comparison)
            reason = reason or stale_champion(ready.parent_digest, current.active.artifact_digest)
            if reason is not None or report.manifest is None:
                await self._reject(ready, current, reason or "the trial load gave no result")
                return
            await self.create_model_backup(current.active)
            await self.deploy_model(ready, report, current)
        except OSError as error:  # the store's, or no child could be started
            raise RetryLaterError(repr(error)) from error

    async def validate_deployment(self, ready: ModelReady) -> TrialReport:
        """Load the candidate and ask it in a process of its own; return the report."""
        order = TrialOrder(
            model_type=ready.model_type, store_url=self._storage.store_url, address=ready.artifact_uri, digest=ready.artifact_digest,
            keys_folder=str(self._settings.resolved_keys_folder), slowest_prediction_ms=self._settings.slowest_prediction_ms,
        )  # fmt: skip
        return await try_in_child(order, timeout_seconds=self._settings.verification_seconds)

    async def create_model_backup(self, version: VersionRow) -> str | None:
        """Keep a second, verified copy of the version that is about to be replaced; return its address.

        When no undamaged copy is left it logs a warning and returns None: serving the newer version is then better.
        """
        try:
            return await self._storage.back_up(version.address)
        except ArtifactRejectedError as error:
            log.warning("active_version_damaged", version=version.version, error=str(error))
            return None

    async def deploy_model(self, ready: ModelReady, report: TrialReport, current: DesiredRow) -> None:
        """Serve a verified candidate as the next version.

        Raises:
            RetryLaterError: ``current`` is no longer the desired state.
        """
        async with self._database.transaction() as work:
            repository = DeploymentRepository(work.connection)
            new = numbered(ready, report, await repository.versions(ready.model_type))
            version = await repository.add_version(new)
            if version is None:
                raise RetryLaterError(f"version {new.version} of {ready.model_type} was taken by another deployer")
            moved = await self._moved(work, Move(current, version, current.active), correlation_id=ready.correlation_id)
            reason = (
                f"{ready.comparison.metric} {ready.comparison.candidate:.4g}, verified and better than what was served"
            )
            evidence = {"comparison": msgspec.to_builtins(ready.comparison), "trial": report.facts}
            await self._decide(
                work,
                Decision(
                    model_type=ready.model_type, decision="promoted", reason=reason, version=version.version, sequence=moved.sequence,
                    training_event_id=ready.training_event_id, evidence=evidence,
                ),
            )  # fmt: skip

    async def deploy_known(self, work: UnitOfWork, command: DeployModel, model_type: ModelType) -> CommandOutcome:
        """Serve a known version again, by command, inside ``work``.

        Raises:
            CommandRejectedError: the version is not known, is active already, or its artifact is gone.
        """
        repository, current = await self._locked(work, model_type)
        versions = await repository.versions(model_type)
        chosen = next((row for row in versions if row.version == command.version), None)
        if chosen is None:
            raise CommandRejectedError(
                f"there is no version {command.version} of {model_type}; known are {_listed(versions)}"
            )
        if chosen.id == current.active.id:
            raise CommandRejectedError(
                f"version {chosen.version} of {model_type} is served already; known are {_listed(versions)}"
            )
        await self._require_artifact(chosen, versions)
        move = Move(current, chosen, current.active)
        return await self._by_command(work, command, move, decision="deployed")

    async def rollback_model(self, work: UnitOfWork, command: RollBackModel, model_type: ModelType) -> CommandOutcome:
        """Serve the previous version again, by command, inside ``work``.

        Raises:
            CommandRejectedError: there is nothing before the active version, or its artifact is gone.
        """
        repository, current = await self._locked(work, model_type)
        versions = await repository.versions(model_type)
        if current.previous is None:
            raise CommandRejectedError(
                f"there is nothing before version {current.active.version} of {model_type}; deploy one of {_listed(versions)} instead"
            )
        await self._require_artifact(current.previous, versions)
        await repository.count_roll_back(current.active)
        move = Move(current, current.previous, _before(current.previous, versions))
        return await self._by_command(work, command, move, decision="rolled_back")

    async def _by_command(
        self, work: UnitOfWork, command: DeployModel | RollBackModel, move: Move, *, decision: str
    ) -> CommandOutcome:
        moved = await self._moved(work, move, correlation_id=command.correlation_id or command.event_id)
        model_type, before, after = move.seen.model_type, move.seen.active.version, move.active.version
        detail = f"{model_type} {after} is served instead of {before} (desired state {moved.sequence})"
        await DeploymentRepository(work.connection).add_decision(
            Decision(
                model_type=model_type, decision=decision, reason=f"by command of {command.issuer}", version=after, sequence=moved.sequence,
                evidence={"command_id": str(command.event_id), "from_version": before},
            )
        )  # fmt: skip
        METRICS.deployer_decisions.labels(model_type=model_type, decision=decision).inc()
        result = {"version": after, "previous_version": before, "sequence": moved.sequence}
        return CommandOutcome(detail=detail, result=result)

    async def _moved(self, work: UnitOfWork, move: Move, *, correlation_id: UUID | None) -> DesiredRow:
        """Move the desired state and announce it.

        Raises:
            RetryLaterError: another owner moved it since it was read.
        """
        repository = DeploymentRepository(work.connection)
        if await repository.move(move) is None:
            raise RetryLaterError(f"the desired state of {move.seen.model_type} moved on from {move.seen.sequence}")
        moved = await repository.desired(move.seen.model_type)
        if moved is None:
            raise RetryLaterError(f"the desired state of {move.seen.model_type} is gone")
        await announce(work, desired_state(moved, now=self._clock.now(), correlation_id=correlation_id))
        return moved

    async def _reject(self, ready: ModelReady, current: DesiredRow, reason: str) -> None:
        async with self._database.transaction() as work:
            repository = DeploymentRepository(work.connection)
            await repository.lock(ready.model_type)
            if await repository.is_decided(ready.model_type, ready.training_event_id):
                return
            facts = {
                "artifact_uri": ready.artifact_uri, "training_event_id": str(ready.training_event_id), "active": current.active.version,
            }  # fmt: skip
            await alert(
                work,
                name="candidate_rejected",
                subject=ready.model_type,
                detail=reason,
                now=self._clock.now(),
                facts=facts,
            )
            await self._decide(
                work,
                Decision(
                    model_type=ready.model_type, decision="rejected", reason=reason, training_event_id=ready.training_event_id,
                    evidence={**facts, "comparison": msgspec.to_builtins(ready.comparison)},
                ),
            )  # fmt: skip

    async def _decide(self, work: UnitOfWork, decision: Decision) -> None:
        """Record the deployer's own decision with its audit row; call it last."""
        await DeploymentRepository(work.connection).add_decision(decision)
        outcome = "rejected" if decision.decision == "rejected" else "succeeded"
        await work.audit(
            actor=ACTOR, action=decision.decision, subject=decision.model_type, outcome=outcome,
            details={"version": decision.version, "reason": decision.reason, "sequence": decision.sequence},
        )  # fmt: skip
        METRICS.deployer_decisions.labels(model_type=decision.model_type, decision=decision.decision).inc()
        log.info(
            "rollout_decided",
            model_type=decision.model_type,
            decision=decision.decision,
            version=decision.version,
            reason=decision.reason,
        )

    async def _current(self, model_type: ModelType) -> DesiredRow:
        async with self._database.reading() as connection:
            current = await DeploymentRepository(connection).desired(model_type)
        if current is None:
            raise RetryLaterError(f"{model_type} has no desired state yet")
        return current

    async def _is_decided(self, ready: ModelReady, current: DesiredRow) -> bool:
        async with self._database.reading() as connection:
            repository = DeploymentRepository(connection)
            known = {version.artifact_digest for version in await repository.versions(current.model_type)}
            return ready.artifact_digest in known or await repository.is_decided(
                current.model_type, ready.training_event_id
            )

    async def _locked(self, work: UnitOfWork, model_type: ModelType) -> tuple[DeploymentRepository, DesiredRow]:
        repository = DeploymentRepository(work.connection)
        await repository.lock(model_type)
        current = await repository.desired(model_type)
        if current is None:
            raise CommandRejectedError(
                f"{model_type} has no version yet: the deployer is still starting; send it again"
            )
        return repository, current

    async def _require_artifact(self, version: VersionRow, versions: list[VersionRow]) -> None:
        if not await self._storage.is_usable(version.address):
            raise CommandRejectedError(
                f"the artifact of version {version.version} is no longer stored; choose another one of {_listed(versions)}"
            )


def _before(version: VersionRow, versions: list[VersionRow]) -> VersionRow | None:
    by_number = {SemanticVersion.parse(row.version): row for row in versions}
    number = version_before(SemanticVersion.parse(version.version), by_number)
    return None if number is None else by_number[number]


def _listed(versions: list[VersionRow]) -> str:
    return ", ".join(
        f"{row.version}{' (active)' if row.is_active else ' (baseline)' if row.kind == ArtifactKind.BASELINE else ''}"
        for row in versions
    )
