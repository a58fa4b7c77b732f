"""Room in the pages of user states: a state that changes stays in its page, and no index entry is written for it."""

from __future__ import annotations

from alembic import op

revision = "v0007"
down_revision = "v0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Fill new pages to six tenths; those that exist follow with their rows' next versions."""
    op.execute("ALTER TABLE user_states SET (fillfactor = 60)")


def downgrade() -> None:
    """Fill new pages whole again."""
    op.execute("ALTER TABLE user_states RESET (fillfactor)")
