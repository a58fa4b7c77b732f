"""Which offsets a person has quarantined: no snapshot of the model reads them any more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0006"
down_revision = "v0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what was never quarantined has no ranges in it."""
    op.add_column("training_datasets", sa.Column("quarantined_ranges", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    """Forget which offsets were quarantined: they train again."""
    op.drop_column("training_datasets", "quarantined_ranges")
