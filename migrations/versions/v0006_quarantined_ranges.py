"""The quarantined offsets of a data set: no snapshot of the model reads them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0006"
down_revision = "v0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is null for a data set that was never quarantined."""
    op.add_column("training_datasets", sa.Column("quarantined_ranges", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    """Drop the column; the quarantined offsets train again."""
    op.drop_column("training_datasets", "quarantined_ranges")
