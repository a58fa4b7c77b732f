"""The tables of trainers and deployer, as of this revision.

This does not read ``schemas.tables``: a revision must always do the same, while the tables change.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
PERFORMANCE = sa.Numeric(6, 4)
# In the order of their foreign keys.
TABLES = (
    "snapshots",
    "training_jobs",
    "model_training_events",
    "replica_acknowledgements",
    "replicas",
    "rollout_decisions",
    "model_versions",
    "deployments",
)


def upgrade() -> None:
    """Create the tables with their constraints and indexes."""
    _create_training()
    _create_deployment()


def downgrade() -> None:
    """Drop the tables, referring ones first."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_training() -> None:
    """Create the trainers' jobs, snapshots and runs."""
    op.create_table(
        "snapshots",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=True),
        sa.Column("uri", sa.String(500), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("ranges", postgresql.JSONB(), nullable=False),
        sa.Column("epochs", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("cut", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
    )
    op.create_index("ix_snapshots_model_type_created_at", "snapshots", ["model_type", "created_at"])
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("command_id", sa.UUID(), nullable=True),
        sa.Column("correlation_id", sa.UUID(), nullable=True),
        sa.Column("ranges", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("status", sa.String(16), server_default="queued", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("training_event_id", sa.UUID(), nullable=True),
        sa.Column("leased_by", sa.String(100), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("not_before", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_training_jobs_known_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_jobs")),
        sa.UniqueConstraint("command_id", name=op.f("uq_training_jobs_command_id")),
        sa.UniqueConstraint("model_type", "epoch", name=op.f("uq_training_jobs_model_type_epoch")),
    )
    op.create_index("ix_training_jobs_status_not_before", "training_jobs", ["status", "not_before"])
    op.create_table(
        "model_training_events",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("training_dataset_id", sa.UUID(), nullable=True),
        sa.Column("start_time", MOMENT, nullable=True),
        sa.Column("end_time", MOMENT, nullable=True),
        sa.Column("status", sa.String(20), server_default="pending", nullable=False),
        sa.Column("performance_metrics", postgresql.JSONB(), nullable=True),
        sa.Column("model_path", sa.String(500), nullable=True),
        sa.Column("previous_model_path", sa.String(500), nullable=True),
        sa.Column("training_data_size", sa.Integer(), nullable=True),
        sa.Column("validation_score", PERFORMANCE, nullable=True),
        sa.Column("deployment_approved", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=True),
        sa.Column("reasons", postgresql.JSONB(), nullable=True),
        sa.Column("epochs", postgresql.ARRAY(sa.Integer()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("snapshot_id", sa.UUID(), nullable=True),
        sa.Column("correlation_id", sa.UUID(), nullable=True),
        sa.Column("artifact_digest", sa.String(64), nullable=True),
        sa.Column("champion_digest", sa.String(64), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'in_progress', 'completed', 'failed', 'deployed')",
            name=op.f("ck_model_training_events_known_status"),
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_model_training_events_snapshot_id_snapshots")
        ),
        sa.ForeignKeyConstraint(
            ["training_dataset_id"],
            ["training_datasets.id"],
            name=op.f("fk_model_training_events_training_dataset_id_training_datasets"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_training_events")),
    )
    op.create_index(
        "ix_model_training_events_model_type_created_at", "model_training_events", ["model_type", "created_at"]
    )
    op.create_index("ix_model_training_events_status_start_time", "model_training_events", ["status", "start_time"])
    op.create_index("ix_model_training_events_training_dataset_id", "model_training_events", ["training_dataset_id"])


def _create_deployment() -> None:
    """Create the deployer's versions, desired states and replicas."""
    op.create_table(
        "replica_acknowledgements",
        sa.Column("replica_id", sa.String(100), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("served_since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("replica_id", "model_type", "sequence", name=op.f("pk_replica_acknowledgements")),
    )
    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.String(100), nullable=False),
        sa.Column("url", sa.String(500), nullable=False),
        sa.Column("models", postgresql.JSONB(), nullable=False),
        sa.Column("swaps", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "rollout_decisions",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("training_event_id", sa.UUID(), nullable=True),
        sa.Column("version", sa.String(20), nullable=True),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("evidence", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("decided_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "decision IN ('baseline', 'promoted', 'rejected', 'rolled_back', 'deployed')",
            name=op.f("ck_rollout_decisions_known_decision"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_decisions")),
    )
    op.create_index("ix_rollout_decisions_model_type_decided_at", "rollout_decisions", ["model_type", "decided_at"])
    op.create_table(
        "model_versions",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("model_path", sa.String(500), nullable=False),
        sa.Column("training_event_id", sa.UUID(), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("performance_baseline", PERFORMANCE, nullable=True),
        sa.Column("performance_current", PERFORMANCE, nullable=True),
        sa.Column("deployment_date", MOMENT, nullable=True),
        sa.Column("rollback_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("artifact_digest", sa.String(64), nullable=False),
        sa.Column("parent_digest", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(
            ["training_event_id"],
            ["model_training_events.id"],
            name=op.f("fk_model_versions_training_event_id_model_training_events"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("model_type", "artifact_digest", name=op.f("uq_model_versions_model_type_artifact_digest")),
        sa.UniqueConstraint("model_type", "version", name=op.f("uq_model_versions_model_type_version")),
    )
    op.create_index("ix_model_versions_model_type_created_at", "model_versions", ["model_type", "created_at"])
    op.create_index(
        "uq_model_versions_active", "model_versions", ["model_type"], unique=True, postgresql_where=sa.text("is_active")
    )
    op.create_table(
        "deployments",
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("active_version_id", sa.UUID(), nullable=False),
        sa.Column("previous_version_id", sa.UUID(), nullable=True),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_deployments_sequence_positive")),
        sa.ForeignKeyConstraint(
            ["active_version_id"], ["model_versions.id"], name=op.f("fk_deployments_active_version_id_model_versions")
        ),
        sa.ForeignKeyConstraint(
            ["previous_version_id"],
            ["model_versions.id"],
            name=op.f("fk_deployments_previous_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("model_type", name=op.f("pk_deployments")),
    )
