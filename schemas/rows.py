"""The rows that queries return. Each field is a column of the same name, in the order in which programs see them. Pure.

Scores and performances are decimals, as in the database. Documents (JSON columns) that this code does not read stay mappings.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from schemas.evaluations import StoredEvaluation
from schemas.messages.deployment import ServedModel
from schemas.messages.envelope import OffsetRange
from schemas.vocabulary import DatasetReview


class VersionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model and how it performed."""

    model_type: str
    version: str
    kind: str
    is_active: bool
    performance_current: Decimal | None
    performance_baseline: Decimal | None
    rollback_count: int
    deployment_date: dt.datetime | None
    created_at: dt.datetime
    artifact_digest: str
    training_event_id: UUID | None


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A data set of one epoch with its newest quality, which is None before the first judgement."""

    dataset_type: str
    epoch: int
    data_count: int
    threshold: int
    threshold_reached: bool
    is_ready_for_training: bool
    data_quality_score: Decimal | None
    completeness_score: Decimal | None
    consistency_score: Decimal | None
    validity_score: Decimal | None
    freshness_score: Decimal | None
    diversity_score: Decimal | None
    anomaly_count: int | None
    duplicate_count: int | None
    missing_values_count: int | None
    last_training_date: dt.datetime | None
    created_at: dt.datetime
    updated_at: dt.datetime
    closed_at: dt.datetime | None
    review: str
    reviewed_by: str | None
    review_reason: str | None


class EvaluationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a threshold; ``factors`` as they are stored (:func:`schemas.evaluations.read_factors` types them)."""

    model_type: str
    epoch: int
    decision: str
    counted: int
    threshold: int
    quality_score: Decimal | None
    sentence: str
    factors: dict[str, Any]
    evaluated_at: dt.datetime


class ExplainedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """One data set with its last evaluation and the parts of its newest judgement; None before the first of each."""

    model_type: str
    epoch: int
    updated_at: dt.datetime
    closed_at: dt.datetime | None
    evaluation: StoredEvaluation | None
    quality_parts: dict[str, Any] | None
    assessed_at: dt.datetime | None


class ThresholdSetting(msgspec.Struct, frozen=True, kw_only=True):
    """The rule in force for a model, and who set it."""

    model_type: str
    threshold: int
    quality_gate: Decimal
    cool_down_seconds: int
    updated_by: str
    updated_at: dt.datetime
    adaptive: bool
    least: int | None
    most: int | None
    max_age_seconds: int | None
    blackouts: Sequence[str]
    user_share: Decimal
    even_share: float
    reference_cost_seconds: float | None


class ReviewedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """A data set, locked for a review. ``ranges`` are those of its crossing; None if it is open or closed by a quarantine."""

    id: UUID
    epoch: int
    is_open: bool
    data_count: int
    threshold: int
    quality_score: float | None
    review: DatasetReview
    reviewed_by: str | None
    ranges: tuple[OffsetRange, ...] | None


class TrainingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One training with its verdict and reasons."""

    id: UUID
    model_type: str
    status: str
    verdict: str | None
    epochs: Sequence[int]
    training_data_size: int | None
    validation_score: Decimal | None
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    reasons: Sequence[str] | None
    performance_metrics: dict[str, Any] | None
    error: str | None
    created_at: dt.datetime


class QueuedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A training job that waits or runs; ``epoch`` is None if a command started it."""

    id: UUID
    model_type: str
    epoch: int | None
    status: str
    attempts: int
    leased_by: str | None
    lease_until: dt.datetime | None
    not_before: dt.datetime
    created_at: dt.datetime


class ArchivedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An archived behavioural event and where it came from, without its payload."""

    event_id: UUID
    occurred_at: dt.datetime
    event_type: str
    interaction_type: str
    user_id: UUID
    consent: bool
    source: str
    partition: int
    offset: int


class RolloutDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version was or was not served."""

    id: UUID
    model_type: str
    training_event_id: UUID | None
    version: str | None
    decision: str
    reason: str
    sequence: int | None
    evidence: dict[str, Any]
    decided_at: dt.datetime


class DesiredDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state of a model; ``kind`` is that of the active version."""

    model_type: str
    sequence: int
    phase: str
    version: str
    kind: str
    previous_version: str | None
    updated_at: dt.datetime


class KnownReplica(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica last reported."""

    replica_id: str
    url: str
    models: dict[str, ServedModel]
    swaps: int
    started_at: dt.datetime
    last_seen_at: dt.datetime


class LedgerPosition(msgspec.Struct, frozen=True, kw_only=True):
    """The position up to which the work of a partition is committed, and when it last moved."""

    topic: str
    generation: int
    partition: int
    next_offset: int
    updated_at: dt.datetime


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One administrative action; ``hash`` covers the entry and the previous hash."""

    id: int
    recorded_at: dt.datetime
    actor: str
    action: str
    subject: str
    outcome: str
    details: dict[str, Any]
    previous_hash: str
    hash: str


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """When a replica first served a desired state."""

    replica_id: str
    model_type: str
    sequence: int
    version: str
    served_since: dt.datetime


class WaitingAnnouncements(msgspec.Struct, frozen=True, kw_only=True):
    """How many outbox rows of a service are unpublished, and since when the oldest waits."""

    service: str
    rows: int
    oldest: dt.datetime


class ExpiredLease(msgspec.Struct, frozen=True, kw_only=True):
    """A running job whose lease has expired."""

    id: UUID
    model_type: str
    lease_until: dt.datetime


class FailedTraining(msgspec.Struct, frozen=True, kw_only=True):
    """A training that failed recently."""

    model_type: str
    error: str | None
    end_time: dt.datetime


class LoopFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures by which the links of the loop are judged, and the database's time."""

    now: dt.datetime
    outbox: tuple[WaitingAnnouncements, ...] = ()
    expired_leases: tuple[ExpiredLease, ...] = ()
    failed_trainings: tuple[FailedTraining, ...] = ()


class DeadLetterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter without its content; ``bytes`` is its size, ``state`` the outcome of its retry."""

    id: int
    topic: str
    partition: int
    offset: int
    producer: str
    reason: str
    detail: str
    state: str
    attempts: int
    retry_of: int | None
    bytes: int
    record_at: dt.datetime | None
    created_at: dt.datetime
    retried_at: dt.datetime | None
    resolved_at: dt.datetime | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter with all its columns; ``raw`` is the record byte for byte."""

    id: int
    topic: str
    generation: int
    partition: int
    offset: int
    key: bytes | None
    reason: str
    detail: str
    raw: bytes
    record_at: dt.datetime | None
    created_at: dt.datetime
    producer: str
    attempts: int
    retry_of: int | None
    retried_at: dt.datetime | None
    resolved_at: dt.datetime | None
    state: str


class DeadLetterTry(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a record: its first dead letter, or one from a failed retry."""

    id: int
    reason: str
    detail: str
    state: str
    attempts: int
    created_at: dt.datetime
    retried_at: dt.datetime | None


class ExceededLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The exceeded limit of a producer with too many dead letters."""

    producer: str
    alert_id: UUID
    detail: str
    raised_at: dt.datetime
    exceeded_at: dt.datetime
