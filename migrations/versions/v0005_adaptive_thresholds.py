"""Adaptive thresholds: bounds, age, blackouts and share of a user; arrivals by hour; reviews of data sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0005"
down_revision = "v0004"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
# Outcomes of goals are recorded by the hundred at the end of a term; a cool-down of five minutes makes them one crossing.
GOAL_COOL_DOWN_SECONDS = 300


def upgrade() -> None:
    """Add the columns with the defaults of a new installation; cool-downs set by users are kept."""
    _extend_thresholds()
    _extend_data_sets()
    op.create_table(
        "arrival_patterns",
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column("rates", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("hours", sa.Integer(), nullable=False),
        sa.Column("current_hour", MOMENT, nullable=False),
        sa.Column("current_count", sa.Integer(), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("model_type", name=op.f("pk_arrival_patterns")),
    )
    op.execute(
        f"UPDATE thresholds SET cool_down_seconds = {GOAL_COOL_DOWN_SECONDS}"  # noqa: S608 - a number of ours
        " WHERE model_type = 'goal' AND updated_by = 'migration'"
    )


def downgrade() -> None:
    """Drop the table and the columns; the cool-downs stay."""
    op.drop_table("arrival_patterns")
    for name in ("share_alert_at", "evaluation", "review_reason", "reviewed_at", "reviewed_by", "review"):
        op.drop_column("training_datasets", name)
    for name in (
        "reference_cost_seconds",
        "even_share",
        "user_share",
        "blackouts",
        "max_age_seconds",
        "most",
        "least",
        "adaptive",
    ):
        op.drop_column("thresholds", name)


def _extend_thresholds() -> None:
    for column in (
        sa.Column("adaptive", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("least", sa.Integer(), nullable=True),
        sa.Column("most", sa.Integer(), nullable=True),
        sa.Column("max_age_seconds", sa.Integer(), server_default=sa.text("2592000"), nullable=True),
        sa.Column("blackouts", postgresql.ARRAY(sa.String(40)), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("user_share", sa.Numeric(5, 4), server_default=sa.text("0.02"), nullable=False),
        sa.Column("even_share", sa.Double(), server_default=sa.text("3"), nullable=False),
        sa.Column("reference_cost_seconds", sa.Double(), nullable=True),
    ):
        op.add_column("thresholds", column)
    for name, condition in (
        ("bounds_in_order", "least > 0 AND most >= least"),
        ("max_age_positive", "max_age_seconds > 0"),
        ("user_share_ratio", "user_share > 0 AND user_share <= 0.5"),
        ("even_share_positive", "even_share >= 1"),
        ("reference_cost_positive", "reference_cost_seconds > 0"),
    ):
        op.create_check_constraint(op.f(f"ck_thresholds_{name}"), "thresholds", condition)


def _extend_data_sets() -> None:
    for column in (
        sa.Column("review", sa.String(16), server_default=sa.text("'none'"), nullable=False),
        sa.Column("reviewed_by", sa.String(200), nullable=True),
        sa.Column("reviewed_at", MOMENT, nullable=True),
        sa.Column("review_reason", sa.Text(), nullable=True),
        sa.Column("evaluation", postgresql.JSONB(), nullable=True),
        sa.Column("share_alert_at", MOMENT, nullable=True),
    ):
        op.add_column("training_datasets", column)
    op.create_check_constraint(
        op.f("ck_training_datasets_known_review"),
        "training_datasets",
        "review IN ('none', 'approved', 'quarantined')",
    )
