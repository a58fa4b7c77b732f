"""What HTTP answers and programs read, in the host application's own shapes.

Every shape validates from the host's original fields alone; our additions are optional and follow them. The host's
moments have no time zone and are read as UTC.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from schemas.vocabulary import (
    LONGEST_MODEL_TYPE,
    MODEL_TYPE_PATTERN,
    ArtifactKind,
    DatasetReview,
    SemanticVersion,
    TrainingStatus,
    Verdict,
)


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def _semantic(version: str) -> str:
    return str(SemanticVersion.parse(version))


def _ordered(interval: list[float]) -> list[float]:
    if interval != sorted(interval):
        raise ValueError("an interval is [lower, upper]")
    return interval


ModelType = Annotated[str, Field(pattern=MODEL_TYPE_PATTERN, max_length=LONGEST_MODEL_TYPE)]
Moment = Annotated[dt.datetime, AfterValidator(_aware)]
Version = Annotated[str, Field(max_length=20), AfterValidator(_semantic)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Path = Annotated[str, Field(max_length=500)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
# What the tables can hold: NUMERIC(5,4) and NUMERIC(6,4).
Score = Ratio
Performance = Annotated[float, Field(gt=-100, lt=100, allow_inf_nan=False)]
Interval = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class Shape(BaseModel):
    """The base of all shapes: they are immutable, and they ignore fields that a newer side adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True, populate_by_name=True)


# --- predictions ---------------------------------------------------------------------------------------------------


class PredictRequest(BaseModel):
    """A request to a replica: a user, or features (by name, or in the manifest's order), or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: UUID | None = None
    features: dict[str, Number] | list[Number] | None = None
    as_of: Moment | None = None
    goal_id: Name | None = None
    goal: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _asks_about_something(self) -> Self:
        if self.user_id is None and self.features is None:
            raise ValueError("send user_id (a UUID), or features, or both")
        return self


class ServedShape(Shape):
    """What every answer of a replica adds to the host's fields: which version answered, and the id that feedback refers to."""

    prediction_id: UUID | None = None
    model_version: Version | None = None
    artifact_digest: Digest | None = None
    kind: ArtifactKind | None = None
    state: str | None = None


# --- the plan's four tables ----------------------------------------------------------------------------------------


class TrainingDataset(Shape):
    """A model's data set: its progress towards a training, and its quality."""

    id: UUID | None = None
    dataset_type: ModelType
    data_count: Count = 0
    threshold: Annotated[int, Field(gt=0)]
    last_training_date: Moment | None = None
    is_ready_for_training: bool = False
    threshold_reached: bool = False
    data_quality_score: Score | None = None
    created_at: Moment | None = None
    updated_at: Moment | None = None
    epoch: Annotated[int, Field(ge=1)] | None = None
    closed_at: Moment | None = None
    review: DatasetReview = DatasetReview.NONE
    reviewed_by: str | None = None
    reviewed_at: Moment | None = None
    review_reason: str | None = None
    evaluation: dict[str, Any] | None = None
    share_alert_at: Moment | None = None
    quarantined_ranges: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _is_ready_only_above_its_threshold(self) -> Self:
        if self.is_ready_for_training and not self.threshold_reached:
            raise ValueError("a data set is ready for training only when its threshold is reached")
        return self


class ModelTrainingEvent(Shape):
    """One run of a trainer. A training by command has no data set of its own."""

    id: UUID | None = None
    model_type: ModelType
    training_dataset_id: UUID | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None
    status: TrainingStatus = TrainingStatus.PENDING
    performance_metrics: dict[str, Any] | None = None
    model_path: Path | None = None
    previous_model_path: Path | None = None
    training_data_size: Count | None = None
    validation_score: Performance | None = None
    deployment_approved: bool = False
    created_at: Moment | None = None
    verdict: Verdict | None = None
    epochs: tuple[int, ...] = ()
    artifact_digest: Digest | None = None
    champion_digest: Digest | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.start_time is not None and self.end_time is not None and self.end_time < self.start_time:
            raise ValueError("a training ends after it starts")
        return self


class ModelVersion(Shape):
    """One version of a model. The table names ``model_metadata`` ``metadata``; both names are read."""

    id: UUID | None = None
    model_type: ModelType
    version: Version
    model_path: Path
    training_event_id: UUID | None = None
    is_active: bool = False
    performance_baseline: Performance | None = None
    performance_current: Performance | None = None
    deployment_date: Moment | None = None
    rollback_count: Count = 0
    model_metadata: dict[str, Any] | None = Field(
        default=None, validation_alias=AliasChoices("model_metadata", "metadata")
    )
    created_at: Moment | None = None
    kind: ArtifactKind | None = None
    artifact_digest: Digest | None = None
    parent_digest: Digest | None = None


class DataQualityMetrics(Shape):
    """The quality of a training data set. A dimension that does not apply has no score."""

    id: UUID | None = None
    training_dataset_id: UUID
    completeness_score: Score | None = None
    consistency_score: Score | None = None
    validity_score: Score | None = None
    anomaly_count: Count = 0
    duplicate_count: Count = 0
    missing_values_count: Count = 0
    assessment_date: Moment | None = None
    created_at: Moment | None = None
    freshness_score: Score | None = None
    diversity_score: Score | None = None
    overall_score: Score | None = None
