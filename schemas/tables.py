"""All tables, with names, checks, indexes, the one service that writes each (``info["owner"]``) and its purpose (``info["purpose"]``).

The four tables of the product plan keep their columns; our additions follow them. As in the host application, scores
are NUMERIC(5,4), validation and performance NUMERIC(6,4).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP, UUID

from schemas.vocabulary import LONGEST_MODEL_TYPE, DatasetReview, JobStatus, Service, TrainingStatus

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMING)

SCORE = sa.Numeric(5, 4)
PERFORMANCE = sa.Numeric(6, 4)
PATH = sa.String(500)
# Tables partitioned by month of event time; the database function ensure_month_partitions creates the partitions.
PARTITIONED_TABLES = ("behavioral_events", "predictions")


def _uuid() -> UUID[Any]:
    return UUID(as_uuid=True)


def _moment(name: str, *, default_now: bool = False, nullable: bool = False, index: bool = False) -> sa.Column[Any]:
    default = sa.text("now()") if default_now else None
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable, server_default=default, index=index)


def _key(name: str = "id") -> sa.Column[Any]:
    return sa.Column(name, _uuid(), primary_key=True, server_default=sa.text("gen_random_uuid()"))


def _model_type(name: str = "model_type", *, primary_key: bool = False) -> sa.Column[Any]:
    """A column for the key of a model in :data:`models`."""
    known = sa.ForeignKey("models.model_type")
    return sa.Column(name, sa.String(LONGEST_MODEL_TYPE), known, primary_key=primary_key, nullable=False)


def _one_of(column: str, values: tuple[str, ...], name: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=name)


def _offsets() -> list[sa.Column[Any]]:
    return [
        sa.Column("topic", sa.String(100), primary_key=True),
        sa.Column("generation", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    ]


# --- streams -----------------------------------------------------------------------------------------------

models = sa.Table(
    "models", metadata,
    sa.Column("model_type", sa.String(LONGEST_MODEL_TYPE), primary_key=True),
    _moment("registered_at", default_now=True),
    info={"owner": Service.STREAMS, "purpose": "The models that this installation knows. Each is registered once, by the first worker that has it installed."},
)  # fmt: skip

ledger = sa.Table(
    "ledger", metadata, *_offsets(),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    _moment("updated_at", default_now=True),
    sa.CheckConstraint("next_offset >= 0", name="next_offset_not_negative"),
    info={"owner": Service.STREAMS, "purpose": "The next offset of each partition whose effects are in the database; advanced by compare-and-set in the batch's transaction."},
)  # fmt: skip

behavioral_events = sa.Table(
    "behavioral_events", metadata,
    sa.Column("event_id", _uuid(), nullable=False),
    _moment("occurred_at"),
    sa.Column("user_id", _uuid(), nullable=False),
    sa.Column("event_type", sa.String(50), nullable=False),
    sa.Column("interaction_type", sa.String(50), nullable=False),
    sa.Column("consent", sa.Boolean, nullable=False),
    sa.Column("source", sa.String(100), nullable=False),
    sa.Column("payload", JSONB, nullable=False),
    sa.Column("generation", sa.SmallInteger, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    _moment("archived_at", default_now=True),
    sa.UniqueConstraint("event_id", "occurred_at"),
    sa.Index("ix_behavioral_events_position", "generation", "partition", "offset"),
    sa.Index("ix_behavioral_events_user_id_occurred_at", "user_id", "occurred_at"),
    info={"owner": Service.STREAMS, "purpose": "Archive of every accepted event, unique by (event_id, occurred_at), with its position in the topic."},
    postgresql_partition_by="RANGE (occurred_at)",
)  # fmt: skip

user_states = sa.Table(
    "user_states", metadata,
    sa.Column("user_id", _uuid(), primary_key=True),
    sa.Column("reducer_version", sa.SmallInteger, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("state_offset", sa.BigInteger, nullable=False),
    sa.Column("state", BYTEA, nullable=False),
    _moment("updated_at", default_now=True),
    info={"owner": Service.STREAMS, "purpose": "The feature state of each user: the user's events so far, folded by the reducer."},
    postgresql_with={"fillfactor": 60},  # a state changes with each batch of its user, and its new version stays in the page
)  # fmt: skip

panes = sa.Table(
    "panes", metadata, *_offsets(),
    sa.Column("from_offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("to_offset", sa.BigInteger, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("archived", sa.Integer, nullable=False),
    sa.Column("duplicates", sa.Integer, nullable=False),
    sa.Column("dead_lettered", sa.Integer, nullable=False),
    sa.Column("not_consented", sa.Integer, nullable=False),
    sa.Column("counts", JSONB, nullable=False),
    sa.Column("sketches", BYTEA, nullable=True),
    _moment("closed_at", default_now=True),
    sa.CheckConstraint("to_offset > from_offset", name="not_empty"),
    info={"owner": Service.STREAMS, "purpose": "What one batch of one partition added to each model's data set: counts, quality and sketches. Never changed."},
)  # fmt: skip

predictions = sa.Table(
    "predictions", metadata,
    sa.Column("prediction_id", _uuid(), nullable=False),
    _moment("occurred_at"),
    sa.Column("user_id", _uuid(), nullable=False),
    sa.Column("model_type", sa.String(LONGEST_MODEL_TYPE), nullable=False),  # checked at intake: too many rows for a foreign key
    sa.Column("version", sa.String(20), nullable=False),
    sa.Column("artifact_digest", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("replica_id", sa.String(100), nullable=False),
    sa.Column("action_set", sa.String(100), nullable=True),
    sa.Column("action", sa.Integer, nullable=True),
    sa.Column("propensity", sa.Double, nullable=True),
    sa.Column("payload", JSONB, nullable=False),
    sa.Column("generation", sa.SmallInteger, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    _moment("archived_at", default_now=True),
    sa.UniqueConstraint("prediction_id", "occurred_at"),
    sa.Index("ix_predictions_model_type_occurred_at", "model_type", "occurred_at"),
    info={"owner": Service.STREAMS, "purpose": "Archive of every answer of a replica, joined with feedback by prediction_id."},
    postgresql_partition_by="RANGE (occurred_at)",
)  # fmt: skip

dead_letters = sa.Table(
    "dead_letters", metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("topic", sa.String(100), nullable=False),
    sa.Column("generation", sa.SmallInteger, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("key", BYTEA, nullable=True),
    sa.Column("reason", sa.String(50), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("raw", BYTEA, nullable=False),
    _moment("record_at", nullable=True),
    _moment("created_at", default_now=True),
    sa.Column("producer", sa.String(100), nullable=False, server_default="unknown"),
    # How often the record was sent again, its first dead letter, and the outcome of the last retry.
    sa.Column("attempts", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("retry_of", sa.BigInteger, nullable=True),
    _moment("retried_at", nullable=True),
    _moment("resolved_at", nullable=True),
    sa.UniqueConstraint("topic", "generation", "partition", "offset"),
    sa.Index("ix_dead_letters_reason_created_at", "reason", "created_at"),
    sa.Index("ix_dead_letters_producer_created_at", "producer", "created_at"),
    sa.Index("ix_dead_letters_retry_of", "retry_of", "id", postgresql_where=sa.text("retry_of IS NOT NULL")),
    info={"owner": Service.STREAMS, "purpose": "Messages that could not be processed, byte for byte, with the reason, their producer and the outcome of retries."},
)  # fmt: skip

exceeded_limits = sa.Table(
    "exceeded_limits", metadata,
    sa.Column("producer", sa.String(100), primary_key=True),
    sa.Column("alert_id", _uuid(), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    _moment("raised_at", default_now=True),
    _moment("exceeded_at", default_now=True),
    info={"owner": Service.STREAMS, "purpose": "Producers with too many dead letters; a row exists while its alert holds."},
)  # fmt: skip

thresholds = sa.Table(
    "thresholds", metadata, _model_type(primary_key=True),
    sa.Column("threshold", sa.Integer, nullable=False),
    sa.Column("quality_gate", SCORE, nullable=False),
    sa.Column("cool_down_seconds", sa.Integer, nullable=False),
    sa.Column("updated_by", sa.String(200), nullable=False),
    _moment("updated_at", default_now=True),
    sa.Column("adaptive", sa.Boolean, nullable=False),
    # Bounds of the adapted threshold; null means half of the threshold, and twenty times the threshold.
    sa.Column("least", sa.Integer, nullable=True),
    sa.Column("most", sa.Integer, nullable=True),
    sa.Column("max_age_seconds", sa.Integer, nullable=True),
    sa.Column("blackouts", ARRAY(sa.String(40)), nullable=False),
    sa.Column("user_share", SCORE, nullable=False),
    sa.Column("even_share", sa.Double, nullable=False),
    sa.Column("reference_cost_seconds", sa.Double, nullable=True),
    sa.CheckConstraint("threshold > 0", name="threshold_positive"),
    sa.CheckConstraint("quality_gate BETWEEN 0 AND 1", name="quality_gate_ratio"),
    sa.CheckConstraint("cool_down_seconds >= 0", name="cool_down_not_negative"),
    sa.CheckConstraint("least > 0 AND most >= least", name="bounds_in_order"),
    sa.CheckConstraint("max_age_seconds > 0", name="max_age_positive"),
    sa.CheckConstraint("user_share > 0 AND user_share <= 0.5", name="user_share_ratio"),
    sa.CheckConstraint("even_share >= 1", name="even_share_positive"),
    sa.CheckConstraint("reference_cost_seconds > 0", name="reference_cost_positive"),
    info={"owner": Service.STREAMS, "purpose": "The new data points and the quality that trigger a training, and the bounds of their adaptation; changed by command."},
)  # fmt: skip

arrival_patterns = sa.Table(
    "arrival_patterns", metadata, _model_type(primary_key=True),
    sa.Column("rates", ARRAY(sa.Double), nullable=False),
    sa.Column("hours", sa.Integer, nullable=False),
    _moment("current_hour"),
    sa.Column("current_count", sa.Integer, nullable=False),
    _moment("updated_at", default_now=True),
    info={"owner": Service.STREAMS, "purpose": "How many data points of a model arrive in each hour of the week: decayed averages of whole hours, and the current hour."},
)  # fmt: skip

# One row per (dataset_type, epoch); the open one has no closed_at.
training_datasets = sa.Table(
    "training_datasets", metadata, _key(),
    _model_type("dataset_type"),
    sa.Column("data_count", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("threshold", sa.Integer, nullable=False),
    _moment("last_training_date", nullable=True),
    sa.Column("is_ready_for_training", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("threshold_reached", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("data_quality_score", SCORE, nullable=True),
    _moment("created_at", default_now=True),
    _moment("updated_at", default_now=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    # Accumulated statistics of the panes taken so far (counters and merged sketches), so that an evaluation reads only new panes.
    sa.Column("accumulated", BYTEA, nullable=True),
    _moment("closed_at", nullable=True),
    sa.Column("review", sa.String(16), nullable=False, server_default=DatasetReview.NONE),
    sa.Column("reviewed_by", sa.String(200), nullable=True),
    _moment("reviewed_at", nullable=True),
    sa.Column("review_reason", sa.Text, nullable=True),
    # The offsets that no snapshot of the model reads.
    sa.Column("quarantined_ranges", JSONB, nullable=True),
    # The latest evaluation; the history is in threshold_evaluations.
    sa.Column("evaluation", JSONB, nullable=True),
    _moment("share_alert_at", nullable=True),
    sa.UniqueConstraint("dataset_type", "epoch"),
    sa.Index("uq_training_datasets_open", "dataset_type", unique=True, postgresql_where=sa.text("closed_at IS NULL")),
    sa.Index("ix_training_datasets_updated_at", "updated_at"),
    _one_of("review", tuple(DatasetReview), "known_review"),
    info={"owner": Service.STREAMS, "purpose": "Each model's data set per epoch: its progress and its quality (the plan's table)."},
)  # fmt: skip

dataset_cursors = sa.Table(
    "dataset_cursors", metadata, _model_type(primary_key=True), *_offsets(),
    # Where the open epoch begins, and the offset up to which it has taken panes.
    sa.Column("epoch_from_offset", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    info={"owner": Service.STREAMS, "purpose": "Where the open epoch of each model begins, and the offset up to which it has taken panes."},
)  # fmt: skip

threshold_evaluations = sa.Table(
    "threshold_evaluations", metadata, _key(), _model_type(),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("decision", sa.String(32), nullable=False),
    sa.Column("counted", sa.Integer, nullable=False),
    sa.Column("effective_count", sa.Double, nullable=False),
    sa.Column("threshold", sa.Integer, nullable=False),
    sa.Column("quality_score", SCORE, nullable=True),
    sa.Column("factors", JSONB, nullable=False),
    sa.Column("sentence", sa.Text, nullable=False),
    _moment("evaluated_at", default_now=True),
    sa.Index("ix_threshold_evaluations_model_type_evaluated_at", "model_type", "evaluated_at"),
    info={"owner": Service.STREAMS, "purpose": "Every decision of the threshold rule with all its factors, and the sentence for people."},
)  # fmt: skip

epochs = sa.Table(
    "epochs", metadata, _model_type(primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("training_dataset_id", _uuid(), sa.ForeignKey("training_datasets.id"), nullable=False),
    sa.Column("evaluation_id", _uuid(), sa.ForeignKey("threshold_evaluations.id"), nullable=False),
    sa.Column("event_id", _uuid(), nullable=False, unique=True),
    sa.Column("counted", sa.Integer, nullable=False),
    sa.Column("threshold", sa.Integer, nullable=False),
    sa.Column("quality_score", SCORE, nullable=False),
    sa.Column("ranges", JSONB, nullable=False),
    _moment("reached_at", default_now=True),
    info={"owner": Service.STREAMS, "purpose": "Every crossing of a threshold with its offset ranges."},
)  # fmt: skip

data_quality_metrics = sa.Table(
    "data_quality_metrics", metadata, _key(),
    sa.Column("training_dataset_id", _uuid(), sa.ForeignKey("training_datasets.id"), nullable=False),
    sa.Column("completeness_score", SCORE, nullable=True),
    sa.Column("consistency_score", SCORE, nullable=True),
    sa.Column("validity_score", SCORE, nullable=True),
    sa.Column("anomaly_count", sa.Integer, nullable=False),
    sa.Column("duplicate_count", sa.Integer, nullable=False),
    sa.Column("missing_values_count", sa.Integer, nullable=False),
    _moment("assessment_date", default_now=True),
    _moment("created_at", default_now=True),
    sa.Column("freshness_score", SCORE, nullable=True),
    sa.Column("diversity_score", SCORE, nullable=True),
    sa.Column("overall_score", SCORE, nullable=True),
    sa.Column("parts", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    sa.Index("ix_data_quality_metrics_training_dataset_id_assessment_date", "training_dataset_id", "assessment_date"),
    info={"owner": Service.STREAMS, "purpose": "The quality of a training data set, dimension by dimension (the plan's table)."},
)  # fmt: skip

# --- trainers ----------------------------------------------------------------------------------------------

training_jobs = sa.Table(
    "training_jobs", metadata, _key(), _model_type(),
    # Null for a training by command; otherwise unique with the model: one job per epoch.
    sa.Column("epoch", sa.Integer, nullable=True),
    sa.Column("command_id", _uuid(), nullable=True, unique=True),
    sa.Column("correlation_id", _uuid(), nullable=True),
    sa.Column("ranges", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    sa.Column("status", sa.String(16), nullable=False, server_default=JobStatus.QUEUED),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    # The run of this job; several jobs of one model may share a run.
    sa.Column("training_event_id", _uuid(), nullable=True),
    sa.Column("leased_by", sa.String(100), nullable=True),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    _moment("lease_until", nullable=True),
    _moment("not_before", default_now=True),
    _moment("created_at", default_now=True),
    _moment("updated_at", default_now=True),
    sa.UniqueConstraint("model_type", "epoch"),
    sa.Index("ix_training_jobs_status_not_before", "status", "not_before"),
    _one_of("status", tuple(JobStatus), "known_status"),
    info={"owner": Service.TRAINERS, "purpose": "The durable queue of trainings: lease, fence and attempts."},
)  # fmt: skip

snapshots = sa.Table(
    "snapshots", metadata, _key(), _model_type(),
    sa.Column("digest", sa.String(64), nullable=True),
    sa.Column("uri", PATH, nullable=True),
    sa.Column("rows", sa.BigInteger, nullable=True),
    # Stored before reading: the exact ranges and their epochs.
    sa.Column("ranges", JSONB, nullable=False),
    sa.Column("epochs", ARRAY(sa.Integer), nullable=False),
    sa.Column("cut", JSONB, nullable=False),
    _moment("created_at", default_now=True),
    sa.Index("ix_snapshots_model_type_created_at", "model_type", "created_at"),
    info={"owner": Service.TRAINERS, "purpose": "The frozen samples of a training. The ranges are stored before reading, the digest afterwards."},
)  # fmt: skip

model_training_events = sa.Table(
    "model_training_events", metadata, _key(), _model_type(),
    sa.Column("training_dataset_id", _uuid(), sa.ForeignKey("training_datasets.id"), nullable=True),
    _moment("start_time", nullable=True),
    _moment("end_time", nullable=True),
    sa.Column("status", sa.String(20), nullable=False, server_default=TrainingStatus.PENDING),
    sa.Column("performance_metrics", JSONB, nullable=True),
    sa.Column("model_path", PATH, nullable=True),
    sa.Column("previous_model_path", PATH, nullable=True),
    sa.Column("training_data_size", sa.Integer, nullable=True),
    sa.Column("validation_score", PERFORMANCE, nullable=True),
    sa.Column("deployment_approved", sa.Boolean, nullable=False, server_default=sa.text("false")),
    _moment("created_at", default_now=True),
    sa.Column("verdict", sa.String(20), nullable=True),
    sa.Column("reasons", JSONB, nullable=True),
    sa.Column("epochs", ARRAY(sa.Integer), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("snapshot_id", _uuid(), sa.ForeignKey("snapshots.id"), nullable=True),
    sa.Column("correlation_id", _uuid(), nullable=True),
    sa.Column("artifact_digest", sa.String(64), nullable=True),
    sa.Column("champion_digest", sa.String(64), nullable=True),
    sa.Column("seed", sa.BigInteger, nullable=True),
    sa.Column("error", sa.Text, nullable=True),
    sa.Index("ix_model_training_events_model_type_created_at", "model_type", "created_at"),
    sa.Index("ix_model_training_events_status_start_time", "status", "start_time"),
    sa.Index("ix_model_training_events_training_dataset_id", "training_dataset_id"),
    _one_of("status", tuple(TrainingStatus), "known_status"),
    info={"owner": Service.TRAINERS, "purpose": "Every run of a trainer with its verdict (the plan's table)."},
)  # fmt: skip

# --- deployer ----------------------------------------------------------------------------------------------

model_versions = sa.Table(
    "model_versions", metadata, _key(), _model_type(),
    sa.Column("version", sa.String(20), nullable=False),
    sa.Column("model_path", PATH, nullable=False),
    sa.Column("training_event_id", _uuid(), sa.ForeignKey("model_training_events.id"), nullable=True),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("performance_baseline", PERFORMANCE, nullable=True),
    sa.Column("performance_current", PERFORMANCE, nullable=True),
    _moment("deployment_date", nullable=True),
    sa.Column("rollback_count", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    _moment("created_at", default_now=True),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("artifact_digest", sa.String(64), nullable=False),
    sa.Column("parent_digest", sa.String(64), nullable=True),
    sa.UniqueConstraint("model_type", "version"),
    sa.UniqueConstraint("model_type", "artifact_digest"),
    sa.Index("uq_model_versions_active", "model_type", unique=True, postgresql_where=sa.text("is_active")),
    sa.Index("ix_model_versions_model_type_created_at", "model_type", "created_at"),
    info={"owner": Service.DEPLOYER, "purpose": "Every accepted version of a model, and which one is active (the plan's table)."},
)  # fmt: skip

deployments = sa.Table(
    "deployments", metadata, _model_type(primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("phase", sa.String(20), nullable=False),
    sa.Column("active_version_id", _uuid(), sa.ForeignKey("model_versions.id"), nullable=False),
    sa.Column("previous_version_id", _uuid(), sa.ForeignKey("model_versions.id"), nullable=True),
    _moment("updated_at", default_now=True),
    sa.CheckConstraint("sequence > 0", name="sequence_positive"),
    info={"owner": Service.DEPLOYER, "purpose": "The desired state of each model, with the sequence that orders it for receivers."},
)  # fmt: skip

rollout_decisions = sa.Table(
    "rollout_decisions", metadata, _key(), _model_type(),
    sa.Column("training_event_id", _uuid(), nullable=True),
    sa.Column("version", sa.String(20), nullable=True),
    sa.Column("decision", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=True),
    sa.Column("evidence", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    _moment("decided_at", default_now=True),
    sa.Index("ix_rollout_decisions_model_type_decided_at", "model_type", "decided_at"),
    _one_of("decision", ("baseline", "promoted", "rejected", "rolled_back", "deployed"), "known_decision"),
    info={"owner": Service.DEPLOYER, "purpose": "Why a version was promoted, rejected or rolled back, with the evidence."},
)  # fmt: skip

replicas = sa.Table(
    "replicas", metadata,
    sa.Column("replica_id", sa.String(100), primary_key=True),
    sa.Column("url", PATH, nullable=False),
    sa.Column("models", JSONB, nullable=False),
    sa.Column("swaps", sa.Integer, nullable=False),
    _moment("started_at"),
    _moment("last_seen_at"),
    info={"owner": Service.DEPLOYER, "purpose": "What each replica last reported that it serves."},
)  # fmt: skip

replica_acknowledgements = sa.Table(
    "replica_acknowledgements", metadata,
    sa.Column("replica_id", sa.String(100), primary_key=True),
    _model_type(primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.String(20), nullable=False),
    _moment("served_since"),
    info={"owner": Service.DEPLOYER, "purpose": "When a replica first served each desired state, as it acknowledged."},
)  # fmt: skip

# --- all services ---------------------------------------------------------------------------------------------

outbox = sa.Table(
    "outbox", metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("service", sa.String(16), nullable=False),
    sa.Column("topic", sa.String(100), nullable=False),
    sa.Column("key", BYTEA, nullable=True),
    sa.Column("payload", BYTEA, nullable=False),
    sa.Column("headers", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    _moment("created_at", default_now=True),
    _moment("published_at", nullable=True),
    sa.Index("ix_outbox_unpublished", "service", "id", postgresql_where=sa.text("published_at IS NULL")),
    _one_of("service", tuple(Service), "known_service"),
    info={"owner": "each service its own rows", "purpose": "Messages to publish; a row exists if and only if what it announces is true."},
)  # fmt: skip

command_inbox = sa.Table(
    "command_inbox", metadata,
    sa.Column("issuer", sa.String(200), primary_key=True),
    sa.Column("command_id", _uuid(), primary_key=True),
    sa.Column("command_type", sa.String(50), nullable=False),
    sa.Column("executor", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    _moment("received_at", default_now=True),
    info={"owner": "the service that executes", "purpose": "Every command that was received, once, and its outcome."},
)  # fmt: skip

audit_log = sa.Table(
    "audit_log", metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    _moment("recorded_at"),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("action", sa.String(50), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("details", JSONB, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Index("ix_audit_log_recorded_at", "recorded_at"),
    info={"owner": "the service that executes, through append_audit", "purpose": "Append-only, hash-chained record of every administrative action and decision."},
)  # fmt: skip
