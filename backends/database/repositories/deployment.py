"""Versions, desired states, rollout decisions and replicas: the deployer's tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from backends.database.figures import storable_performance
from schemas.messages.deployment import ReplicaStatus, VersionReference
from schemas.tables import (
    deployments,
    model_training_events,
    model_versions,
    replica_acknowledgements,
    replicas,
    rollout_decisions,
)
from schemas.vocabulary import ArtifactKind, DeploymentPhase, ModelType

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class VersionRow(NamedTuple):
    """One accepted version."""

    id: UUID
    version: str
    kind: ArtifactKind
    address: str
    artifact_digest: str
    is_active: bool
    metadata: dict[str, Any]

    @property
    def reference(self) -> VersionReference:
        """Return the version as messages name it."""
        return VersionReference(
            version=self.version, kind=self.kind, artifact_uri=self.address, artifact_digest=self.artifact_digest
        )


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version when it is accepted."""

    model_type: ModelType
    version: str
    kind: ArtifactKind
    address: str
    artifact_digest: str
    parent_digest: str | None = None
    training_event_id: UUID | None = None
    performance: float | None = None
    baseline_performance: float | None = None
    metadata: dict[str, Any] = {}


class DesiredRow(NamedTuple):
    """The desired state of one model."""

    model_type: ModelType
    sequence: int
    phase: DeploymentPhase
    active: VersionRow
    previous: VersionRow | None


class Move(NamedTuple):
    """The move from a desired state that was read to the versions that are desired next."""

    seen: DesiredRow
    active: VersionRow
    previous: VersionRow | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout decision: ``baseline``, ``promoted``, ``rejected``, ``rolled_back`` or ``deployed``."""

    model_type: ModelType
    decision: str
    reason: str
    version: str | None = None
    sequence: int | None = None
    training_event_id: UUID | None = None
    evidence: dict[str, Any] = {}


class DeploymentRepository:
    """Queries and changes over one connection; the caller's unit of work commits."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def desired(self, model_type: ModelType) -> DesiredRow | None:
        """Return the desired state, or None before the baseline was deployed."""
        return (await self.all_desired()).get(model_type)

    async def all_desired(self) -> dict[ModelType, DesiredRow]:
        """Return the desired state of each model that has one."""
        rows = (await self._connection.execute(sa.select(deployments))).all()
        ids = {row.active_version_id for row in rows} | {row.previous_version_id for row in rows}
        found = await self._rows(model_versions.c.id.in_([key for key in ids if key is not None]))
        by_id = {row.id: row for row in found}
        return {
            row.model_type: DesiredRow(
                model_type=row.model_type,
                sequence=row.sequence,
                phase=DeploymentPhase(row.phase),
                active=by_id[row.active_version_id],
                previous=by_id.get(row.previous_version_id),
            )
            for row in rows
        }

    async def lock(self, model_type: ModelType) -> None:
        """Lock ``model_type``: one transaction at a time decides about it."""
        await self._connection.execute(
            sa.select(deployments.c.sequence).where(deployments.c.model_type == model_type).with_for_update()
        )

    async def versions(self, model_type: ModelType) -> list[VersionRow]:
        """Return all accepted versions, oldest first."""
        return await self._rows(model_versions.c.model_type == model_type)

    async def add_version(self, new: NewVersion) -> VersionRow | None:
        """Add a version and return it, or None if its number or artifact is already known."""
        training = (
            sa.select(model_training_events.c.id)
            .where(model_training_events.c.id == new.training_event_id)
            .scalar_subquery()
        )
        added = await self._connection.scalar(
            insert(model_versions)
            .values(
                model_type=new.model_type, version=new.version, kind=new.kind, model_path=new.address, artifact_digest=new.artifact_digest,
                parent_digest=new.parent_digest, training_event_id=training, performance_current=storable_performance(new.performance),
                performance_baseline=storable_performance(new.baseline_performance), metadata=new.metadata,
            )
            .on_conflict_do_nothing()
            .returning(model_versions.c.id)
        )  # fmt: skip
        return None if added is None else (await self._rows(model_versions.c.id == added))[0]

    async def begin(self, model_type: ModelType, version: VersionRow, *, sequence: int = 1) -> bool:
        """Make ``version`` the first desired state; return False if there is one already."""
        added = await self._connection.scalar(
            insert(deployments)
            .values(model_type=model_type, sequence=sequence, phase=_phase(version), active_version_id=version.id)
            .on_conflict_do_nothing()
            .returning(deployments.c.sequence)
        )
        if added is not None:
            await self._activate(model_type, version)
        return added is not None

    async def move(self, move: Move, *, sequence: int | None = None) -> int | None:
        """Set the desired state by compare-and-set on the sequence that was read; return it, or None if another owner was faster."""
        seen = move.seen
        target = seen.sequence + 1 if sequence is None else sequence
        moved: int | None = await self._connection.scalar(
            sa.update(deployments)
            .where(deployments.c.model_type == seen.model_type, deployments.c.sequence == seen.sequence)
            .values(
                sequence=target, phase=_phase(move.active), active_version_id=move.active.id, updated_at=sa.func.now(),
                previous_version_id=move.previous.id if move.previous is not None else None,
            )
            .returning(deployments.c.sequence)
        )  # fmt: skip
        if moved is not None:
            await self._activate(seen.model_type, move.active)
        return moved

    async def count_roll_back(self, version: VersionRow) -> None:
        """Record that ``version`` was rolled back."""
        await self._connection.execute(
            sa.update(model_versions)
            .where(model_versions.c.id == version.id)
            .values(rollback_count=model_versions.c.rollback_count + 1)
        )

    async def add_decision(self, decision: Decision) -> None:
        """Record a rollout decision."""
        await self._connection.execute(rollout_decisions.insert().values(**msgspec.structs.asdict(decision)))

    async def is_decided(self, model_type: ModelType, training_event_id: UUID) -> bool:
        """Return whether this training's candidate has a decision."""
        question = sa.select(rollout_decisions.c.id).where(
            rollout_decisions.c.model_type == model_type, rollout_decisions.c.training_event_id == training_event_id
        )
        return (await self._connection.execute(question.limit(1))).first() is not None

    async def see_replica(self, status: ReplicaStatus, *, at: dt.datetime) -> None:
        """Store what a replica reported at ``at``, unless a newer report is stored. New acknowledgements are added once."""
        row = {
            "replica_id": status.replica_id, "url": status.url, "swaps": status.swaps, "started_at": status.started_at, "last_seen_at": at,
            "models": msgspec.to_builtins(status.models),
        }  # fmt: skip
        statement = insert(replicas).values(row)
        changes = {name: statement.excluded[name] for name in row if name != "replica_id"}
        newer = replicas.c.last_seen_at <= statement.excluded.last_seen_at
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["replica_id"], set_=changes, where=newer)
        )
        seen = [
            {"replica_id": status.replica_id, "model_type": name, "sequence": model.sequence, "version": model.version, "served_since": model.since}
            for name, model in status.models.items()
        ]  # fmt: skip
        if seen:
            await self._connection.execute(insert(replica_acknowledgements).on_conflict_do_nothing(), seen)

    async def forget_replica(self, replica_id: str, *, at: dt.datetime) -> None:
        """Remove a replica that left at ``at``; its acknowledgements stay."""
        await self._connection.execute(
            sa.delete(replicas).where(replicas.c.replica_id == replica_id, replicas.c.last_seen_at <= at)
        )

    async def _activate(self, model_type: ModelType, version: VersionRow) -> None:
        """Move ``is_active``: clear the old one first, because only one may be active."""
        v = model_versions.c
        await self._connection.execute(
            sa.update(model_versions).where(v.model_type == model_type, v.is_active).values(is_active=False)
        )
        await self._connection.execute(
            sa.update(model_versions).where(v.id == version.id).values(is_active=True, deployment_date=sa.func.now())
        )

    async def _rows(self, condition: sa.ColumnElement[bool]) -> list[VersionRow]:
        v = model_versions.c
        question = sa.select(v.id, v.version, v.kind, v.model_path, v.artifact_digest, v.is_active, v.metadata)
        rows = await self._connection.execute(question.where(condition).order_by(v.created_at, v.version))
        return [
            VersionRow(
                id=row.id,
                version=row.version,
                kind=ArtifactKind(row.kind),
                address=row.model_path,
                artifact_digest=row.artifact_digest,
                is_active=row.is_active,
                metadata=_metadata(row),
            )
            for row in rows
        ]


def _metadata(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    stored: Mapping[str, Any] = row.metadata
    return dict(stored)


def _phase(version: VersionRow) -> DeploymentPhase:
    return DeploymentPhase.BASELINE if version.kind == ArtifactKind.BASELINE else DeploymentPhase.STABLE
