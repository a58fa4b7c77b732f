"""Models by key: a table of the installation's models, with foreign keys to it, replaces a fixed list of four."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0008"
down_revision = "v0007"
branch_labels = None
depends_on = None

FOUR = ("recommendation", "segmentation", "spending", "goal")
# Tables with a column that names a model, and the column.
REFERRING = {
    "arrival_patterns": "model_type",
    "dataset_cursors": "model_type",
    "deployments": "model_type",
    "epochs": "model_type",
    "model_training_events": "model_type",
    "model_versions": "model_type",
    "replica_acknowledgements": "model_type",
    "rollout_decisions": "model_type",
    "snapshots": "model_type",
    "threshold_evaluations": "model_type",
    "thresholds": "model_type",
    "training_datasets": "dataset_type",
    "training_jobs": "model_type",
}
# The model's definition holds the defaults of its rule, so a row is written with all its values.
RULE_DEFAULTS = {
    "cool_down_seconds": "0",
    "adaptive": "true",
    "max_age_seconds": "2592000",
    "blackouts": "'{}'",
    "user_share": "0.02",
    "even_share": "3",
}
FOREIGN_MODELS = sa.text("SELECT model_type FROM models WHERE NOT model_type = ANY(:four) ORDER BY model_type")


def upgrade() -> None:
    """Register the models that have rows, and add foreign keys from every other table."""
    op.create_table(
        "models",
        sa.Column("model_type", sa.String(32), nullable=False),
        sa.Column(
            "registered_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("model_type", name=op.f("pk_models")),
    )
    op.execute("INSERT INTO models (model_type) SELECT model_type FROM thresholds")
    op.drop_constraint(op.f("ck_thresholds_known_model"), "thresholds")
    op.drop_constraint(op.f("ck_training_datasets_known_model"), "training_datasets")
    for table, column in REFERRING.items():
        op.create_foreign_key(op.f(f"fk_{table}_{column}_models"), table, "models", [column], ["model_type"])
    for column in RULE_DEFAULTS:
        op.alter_column("thresholds", column, server_default=None)
    _rename_outbox_column("room", "service")


def downgrade() -> None:
    """Go back to the fixed list of four.

    Raises:
        RuntimeError: the database has rows of further models; a person must decide to delete them.
    """
    further = list(op.get_bind().execute(FOREIGN_MODELS, {"four": list(FOUR)}).scalars())
    if further:
        message = f"the version before knows only {', '.join(FOUR)}; delete the rows of {', '.join(further)} first"
        raise RuntimeError(message)
    _rename_outbox_column("service", "room")
    for column, default in RULE_DEFAULTS.items():
        op.alter_column("thresholds", column, server_default=sa.text(default))
    for table, column in REFERRING.items():
        op.drop_constraint(op.f(f"fk_{table}_{column}_models"), table)
    four = ", ".join(f"'{model_type}'" for model_type in FOUR)
    op.create_check_constraint(op.f("ck_thresholds_known_model"), "thresholds", f"model_type IN ({four})")
    op.create_check_constraint(
        op.f("ck_training_datasets_known_model"), "training_datasets", f"dataset_type IN ({four})"
    )
    op.drop_table("models")


def _rename_outbox_column(old: str, new: str) -> None:
    op.alter_column("outbox", old, new_column_name=new)
    op.execute(f"ALTER TABLE outbox RENAME CONSTRAINT ck_outbox_known_{old} TO ck_outbox_known_{new}")
