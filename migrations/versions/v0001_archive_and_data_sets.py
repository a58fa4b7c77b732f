"""The tables of streams and the shared ones, as of this revision.

This does not read ``schemas.tables``: a revision must always do the same, while the tables change.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
SCORE = sa.Numeric(5, 4)
# The plan's thresholds: new data points that trigger a training.
THRESHOLDS = {"recommendation": 500, "segmentation": 100, "spending": 1_000, "goal": 50}
QUALITY_GATE = 0.8
# In the order of their foreign keys.
TABLES = (
    "behavioral_events",
    "dead_letters",
    "ledger",
    "panes",
    "predictions",
    "user_states",
    "dataset_cursors",
    "threshold_evaluations",
    "thresholds",
    "training_datasets",
    "data_quality_metrics",
    "epochs",
    "audit_log",
    "command_inbox",
    "outbox",
)


def upgrade() -> None:
    """Create the tables with constraints and indexes, the plan's thresholds and each model's first data set."""
    _create_archive()
    _create_data_sets()
    _create_shared()
    _seed()


def downgrade() -> None:
    """Drop the tables, referring ones first."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_archive() -> None:
    """Create what streams keeps of the topics: events, predictions, states, panes and dead letters."""
    op.create_table(
        "behavioral_events",
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("event_type", sa.String(50), nullable=False),
        sa.Column("interaction_type", sa.String(50), nullable=False),
        sa.Column("consent", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("generation", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.UniqueConstraint("event_id", "occurred_at", name=op.f("uq_behavioral_events_event_id_occurred_at")),
        postgresql_partition_by="RANGE (occurred_at)",
    )
    op.create_index("ix_behavioral_events_position", "behavioral_events", ["generation", "partition", "offset"])
    op.create_index("ix_behavioral_events_user_id_occurred_at", "behavioral_events", ["user_id", "occurred_at"])
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("generation", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("key", postgresql.BYTEA(), nullable=True),
        sa.Column("reason", sa.String(50), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("raw", postgresql.BYTEA(), nullable=False),
        sa.Column("record_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint(
            "topic", "generation", "partition", "offset", name=op.f("uq_dead_letters_topic_generation_partition_offset")
        ),
    )
    op.create_index("ix_dead_letters_reason_created_at", "dead_letters", ["reason", "created_at"])
    op.create_table(
        "ledger",
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("generation", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("next_offset >= 0", name=op.f("ck_ledger_next_offset_not_negative")),
        sa.PrimaryKeyConstraint("topic", "generation", "partition", name=op.f("pk_ledger")),
    )
    op.create_table(
        "panes",
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("generation", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("from_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("to_offset", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("archived", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("dead_lettered", sa.Integer(), nullable=False),
        sa.Column("not_consented", sa.Integer(), nullable=False),
        sa.Column("counts", postgresql.JSONB(), nullable=False),
        sa.Column("sketches", postgresql.BYTEA(), nullable=True),
        sa.Column("closed_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("to_offset > from_offset", name=op.f("ck_panes_not_empty")),
        sa.PrimaryKeyConstraint("topic", "generation", "partition", "from_offset", name=op.f("pk_panes")),
    )
    op.create_table(
        "predictions",
        sa.Column("prediction_id", sa.UUID(), nullable=False),
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("artifact_digest", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("replica_id", sa.String(100), nullable=False),
        sa.Column("action_set", sa.String(100), nullable=True),
        sa.Column("action", sa.Integer(), nullable=True),
        sa.Column("propensity", sa.Double(), nullable=True),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("generation", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.UniqueConstraint("prediction_id", "occurred_at", name=op.f("uq_predictions_prediction_id_occurred_at")),
        postgresql_partition_by="RANGE (occurred_at)",
    )
    op.create_index("ix_predictions_model_type_occurred_at", "predictions", ["model_type", "occurred_at"])
    op.create_table(
        "user_states",
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("reducer_version", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("state_offset", sa.BigInteger(), nullable=False),
        sa.Column("state", postgresql.BYTEA(), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_states")),
    )


def _create_data_sets() -> None:
    """Create the tables of data sets before training: thresholds, epochs, evaluations and quality."""
    op.create_table(
        "dataset_cursors",
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("generation", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch_from_offset", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model_type", "topic", "generation", "partition", name=op.f("pk_dataset_cursors")),
    )
    op.create_table(
        "threshold_evaluations",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("decision", sa.String(32), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("effective_count", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("quality_score", SCORE, nullable=True),
        sa.Column("factors", postgresql.JSONB(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("evaluated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold_evaluations")),
    )
    op.create_index(
        "ix_threshold_evaluations_model_type_evaluated_at", "threshold_evaluations", ["model_type", "evaluated_at"]
    )
    op.create_table(
        "thresholds",
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("quality_gate", SCORE, nullable=False),
        sa.Column("cool_down_seconds", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_by", sa.String(200), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "model_type IN ('recommendation', 'segmentation', 'spending', 'goal')",
            name=op.f("ck_thresholds_known_model"),
        ),
        sa.CheckConstraint("cool_down_seconds >= 0", name=op.f("ck_thresholds_cool_down_not_negative")),
        sa.CheckConstraint("quality_gate BETWEEN 0 AND 1", name=op.f("ck_thresholds_quality_gate_ratio")),
        sa.CheckConstraint("threshold > 0", name=op.f("ck_thresholds_threshold_positive")),
        sa.PrimaryKeyConstraint("model_type", name=op.f("pk_thresholds")),
    )
    op.create_table(
        "training_datasets",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("dataset_type", sa.String(32), nullable=False),
        sa.Column("data_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("last_training_date", MOMENT, nullable=True),
        sa.Column("is_ready_for_training", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("threshold_reached", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("data_quality_score", SCORE, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("accumulated", postgresql.BYTEA(), nullable=True),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "dataset_type IN ('recommendation', 'segmentation', 'spending', 'goal')",
            name=op.f("ck_training_datasets_known_model"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_datasets")),
        sa.UniqueConstraint("dataset_type", "epoch", name=op.f("uq_training_datasets_dataset_type_epoch")),
    )
    op.create_index("ix_training_datasets_updated_at", "training_datasets", ["updated_at"])
    op.create_index(
        "uq_training_datasets_open",
        "training_datasets",
        ["dataset_type"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "data_quality_metrics",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("training_dataset_id", sa.UUID(), nullable=False),
        sa.Column("completeness_score", SCORE, nullable=True),
        sa.Column("consistency_score", SCORE, nullable=True),
        sa.Column("validity_score", SCORE, nullable=True),
        sa.Column("anomaly_count", sa.Integer(), nullable=False),
        sa.Column("duplicate_count", sa.Integer(), nullable=False),
        sa.Column("missing_values_count", sa.Integer(), nullable=False),
        sa.Column("assessment_date", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("freshness_score", SCORE, nullable=True),
        sa.Column("diversity_score", SCORE, nullable=True),
        sa.Column("overall_score", SCORE, nullable=True),
        sa.Column("parts", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.ForeignKeyConstraint(
            ["training_dataset_id"],
            ["training_datasets.id"],
            name=op.f("fk_data_quality_metrics_training_dataset_id_training_datasets"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_quality_metrics")),
    )
    op.create_index(
        "ix_data_quality_metrics_training_dataset_id_assessment_date",
        "data_quality_metrics",
        ["training_dataset_id", "assessment_date"],
    )
    op.create_table(
        "epochs",
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("training_dataset_id", sa.UUID(), nullable=False),
        sa.Column("evaluation_id", sa.UUID(), nullable=False),
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("quality_score", SCORE, nullable=False),
        sa.Column("ranges", postgresql.JSONB(), nullable=False),
        sa.Column("reached_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["threshold_evaluations.id"], name=op.f("fk_epochs_evaluation_id_threshold_evaluations")
        ),
        sa.ForeignKeyConstraint(
            ["training_dataset_id"],
            ["training_datasets.id"],
            name=op.f("fk_epochs_training_dataset_id_training_datasets"),
        ),
        sa.PrimaryKeyConstraint("model_type", "epoch", name=op.f("pk_epochs")),
        sa.UniqueConstraint("event_id", name=op.f("uq_epochs_event_id")),
    )


def _create_shared() -> None:
    """Create the tables that every service writes: outbox, command inbox and audit log."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("hash", name=op.f("uq_audit_log_hash")),
    )
    op.create_index("ix_audit_log_recorded_at", "audit_log", ["recorded_at"])
    op.create_table(
        "command_inbox",
        sa.Column("issuer", sa.String(200), nullable=False),
        sa.Column("command_id", sa.UUID(), nullable=False),
        sa.Column("command_type", sa.String(50), nullable=False),
        sa.Column("executor", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("received_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "command_id", name=op.f("pk_command_inbox")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("room", sa.String(16), nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("key", postgresql.BYTEA(), nullable=True),
        sa.Column("payload", postgresql.BYTEA(), nullable=False),
        sa.Column("headers", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "room IN ('streams', 'trainers', 'deployer', 'serving', 'admin')", name=op.f("ck_outbox_known_room")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_unpublished", "outbox", ["room", "id"], postgresql_where=sa.text("published_at IS NULL"))


def _seed() -> None:
    """Insert the plan's thresholds, and the open data set of each model's first epoch."""
    thresholds = sa.table(
        "thresholds",
        sa.column("model_type", sa.String()),
        sa.column("threshold", sa.Integer()),
        sa.column("quality_gate", SCORE),
        sa.column("updated_by", sa.String()),
    )
    data_sets = sa.table(
        "training_datasets",
        sa.column("dataset_type", sa.String()),
        sa.column("threshold", sa.Integer()),
        sa.column("epoch", sa.Integer()),
    )
    for model, count in THRESHOLDS.items():
        seed = {"model_type": model, "threshold": count, "quality_gate": QUALITY_GATE, "updated_by": "migration"}
        op.execute(thresholds.insert().values(seed))
        op.execute(data_sets.insert().values(dataset_type=model, threshold=count, epoch=1))
