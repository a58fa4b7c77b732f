"""The desired state of each model, and what replicas report that they serve."""

from __future__ import annotations

import msgspec

from schemas.messages.envelope import AwareDatetime, Message
from schemas.vocabulary import ArtifactKind, DeploymentPhase, ModelType


class VersionReference(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model: where its artifact is and which digest it must have."""

    version: str
    kind: ArtifactKind
    artifact_uri: str
    artifact_digest: str


class DeploymentState(Message, frozen=True, kw_only=True, tag="DeploymentState"):
    """What replicas must serve. ``sequence`` only grows; a receiver ignores lower and repeated ones."""

    model_type: ModelType
    sequence: int
    phase: DeploymentPhase
    active: VersionReference
    previous: VersionReference | None = None


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica serves for one model, since when, and which desired state it has acknowledged."""

    version: str
    artifact_digest: str
    kind: ArtifactKind
    sequence: int
    since: AwareDatetime
    previous_version: str | None = None
    error: str | None = None


class ReplicaStatus(Message, frozen=True, kw_only=True, tag="ReplicaStatus"):
    """A replica's acknowledgement and heartbeat."""

    replica_id: str
    url: str
    started_at: AwareDatetime
    models: dict[str, ServedModel]
    swaps: int
