"""Answers of replicas, which are archived like behavioural events and joined with feedback by ``prediction_id``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from schemas.messages.envelope import AwareDatetime, Message
from schemas.vocabulary import ArtifactKind, ModelType


class PredictionServed(Message, frozen=True, kw_only=True, omit_defaults=True, tag="PredictionServed"):
    """One answer. ``event_id`` is the ``prediction_id``.

    ``features`` are those that the model saw, in the order of its manifest;
    ``propensity`` is the exact probability with which ``action`` was chosen from ``action_set``.
    """

    replica_id: str
    user_id: UUID
    model_type: ModelType
    version: str
    artifact_digest: str
    kind: ArtifactKind
    as_of: AwareDatetime
    reducer_version: int
    features: tuple[float, ...]
    answer: dict[str, Any]
    latency_ms: float
    state_offset: int | None = None
    arm: str = "active"
    experiment: str | None = None
    action_set: str | None = None
    action: int | None = None
    propensity: float | None = None
    propensities: tuple[float, ...] | None = None
