"""The history of dead letters, and the producers that exceed the limits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0004"
down_revision = "v0003"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
COLUMNS = ("producer", "attempts", "retry_of", "retried_at", "resolved_at")


def upgrade() -> None:
    """Add the producer and the outcome of dead letters, and the table of exceeded limits."""
    op.add_column("dead_letters", sa.Column("producer", sa.String(100), server_default="unknown", nullable=False))
    op.add_column("dead_letters", sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("dead_letters", sa.Column("retry_of", sa.BigInteger(), nullable=True))
    op.add_column("dead_letters", sa.Column("retried_at", MOMENT, nullable=True))
    op.add_column("dead_letters", sa.Column("resolved_at", MOMENT, nullable=True))
    op.create_index("ix_dead_letters_producer_created_at", "dead_letters", ["producer", "created_at"])
    op.create_index(
        "ix_dead_letters_retry_of", "dead_letters", ["retry_of", "id"], postgresql_where=sa.text("retry_of IS NOT NULL")
    )
    op.create_table(
        "exceeded_limits",
        sa.Column("producer", sa.String(100), nullable=False),
        sa.Column("alert_id", sa.UUID(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("raised_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("exceeded_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("producer", name=op.f("pk_exceeded_limits")),
    )


def downgrade() -> None:
    """Drop the producer and the outcome of dead letters; their bytes and reasons stay."""
    op.drop_table("exceeded_limits")
    op.drop_index("ix_dead_letters_retry_of", "dead_letters")
    op.drop_index("ix_dead_letters_producer_created_at", "dead_letters")
    for column in reversed(COLUMNS):
        op.drop_column("dead_letters", column)
