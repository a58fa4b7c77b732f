"""The rows that queries return."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa

from schemas import rows, tables

# Rows that are read from one table, each field from the column of its name.
OF_ONE_TABLE: dict[type[msgspec.Struct], sa.Table] = {
    rows.VersionSummary: tables.model_versions,
    rows.EvaluationSummary: tables.threshold_evaluations,
    rows.TrainingSummary: tables.model_training_events,
    rows.FailedTraining: tables.model_training_events,
    rows.QueuedJob: tables.training_jobs,
    rows.ExpiredLease: tables.training_jobs,
    rows.ArchivedEvent: tables.behavioral_events,
}
# Rows that are whole tables: programs read every column.
WHOLE: dict[type[msgspec.Struct], sa.Table] = {
    rows.ThresholdSetting: tables.thresholds,
    rows.RolloutDecision: tables.rollout_decisions,
    rows.KnownReplica: tables.replicas,
    rows.LedgerPosition: tables.ledger,
    rows.AuditEntry: tables.audit_log,
    rows.Acknowledgement: tables.replica_acknowledgements,
    rows.ExceededLimit: tables.exceeded_limits,
}


@pytest.mark.parametrize("kind", OF_ONE_TABLE)
def test_each_field_of_a_row_is_a_column(kind: type[msgspec.Struct]) -> None:
    """Each field of a row is a column of its table."""
    assert set(kind.__struct_fields__) <= set(OF_ONE_TABLE[kind].c.keys())


@pytest.mark.parametrize("kind", WHOLE)
def test_a_row_of_a_whole_table_has_all_its_columns_in_their_order(kind: type[msgspec.Struct]) -> None:
    """A row of a whole table has all its columns, in their order."""
    assert list(kind.__struct_fields__) == list(WHOLE[kind].c.keys())
