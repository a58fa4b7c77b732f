"""Messages from a reached threshold to a ready model."""

from __future__ import annotations

from uuid import UUID

import msgspec

from schemas.messages.envelope import Message, OffsetRange
from schemas.vocabulary import ModelType


class ThresholdReached(Message, frozen=True, kw_only=True, tag="ThresholdReached"):
    """A data set is large and good enough. (model_type, epoch) identifies it, and receivers are idempotent on that key."""

    model_type: ModelType
    epoch: int
    training_dataset_id: UUID
    evaluation_id: UUID
    counted: int
    threshold: int
    quality_score: float
    quality: dict[str, float]
    ranges: tuple[OffsetRange, ...]


class TrainingProgressed(Message, frozen=True, kw_only=True, tag="TrainingProgressed"):
    """A training progressed to ``step`` of ``steps`` in a phase; the last message has the verdict."""

    training_event_id: UUID
    model_type: ModelType
    phase: str
    step: int
    steps: int
    loss: float | None = None
    eta_seconds: float | None = None
    verdict: str | None = None


class MetricComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The headline metric of candidate, champion and the best trivial baseline on the same holdout.

    ``higher_is_better`` is the direction. ``lower`` and ``upper`` bound (candidate - champion) at 95 %, clustered by user
    and oriented so that positive is better.
    """

    metric: str
    higher_is_better: bool
    candidate: float
    champion: float | None = None
    baseline: float | None = None
    baseline_name: str | None = None
    lower: float | None = None
    upper: float | None = None


class ModelReady(Message, frozen=True, kw_only=True, tag="ModelReady"):
    """A candidate passed every gate of its trainer. Carries a reference and a digest, never the model."""

    training_event_id: UUID
    model_type: ModelType
    epochs: tuple[int, ...]
    artifact_uri: str
    artifact_digest: str
    snapshot_digest: str
    parent_digest: str | None
    samples: int
    comparison: MetricComparison


class TrainingFailed(Message, frozen=True, kw_only=True, tag="TrainingFailed"):
    """A training ended without a candidate because of an error (a kept champion is no failure)."""

    training_event_id: UUID
    model_type: ModelType
    epochs: tuple[int, ...]
    reason: str
    will_retry: bool
