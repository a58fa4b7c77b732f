"""Free space in the pages of user states: an updated state stays in its page and needs no new index entry."""

from __future__ import annotations

from alembic import op

revision = "v0007"
down_revision = "v0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Fill new pages to 60 %; existing pages follow as their rows are updated."""
    op.execute("ALTER TABLE user_states SET (fillfactor = 60)")


def downgrade() -> None:
    """Fill new pages completely again."""
    op.execute("ALTER TABLE user_states RESET (fillfactor)")
