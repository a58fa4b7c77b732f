"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Say what changes. Locks are waited for 5 s at most (``env.py``); build indexes of big tables concurrently."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Say what is undone."""
    ${downgrades if downgrades else "pass"}
