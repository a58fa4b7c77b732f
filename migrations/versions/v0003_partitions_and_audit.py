"""The database's own functions: monthly partitions of the archive, and the hash-chained audit log."""

from __future__ import annotations

from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None

PARTITIONED = ("behavioral_events", "predictions")
MONTHS_BACK = 13
MONTHS_AHEAD = 3

# A child is built beside its parent and then attached, so that readers and writers of other months go on. Rows of the
# month in the default partition move with it; the short lock keeps new ones out in the meantime.
ENSURE_MONTH_PARTITIONS = """
CREATE FUNCTION ensure_month_partitions(parent text, from_month date, months int) RETURNS int
LANGUAGE plpgsql SET TimeZone TO 'UTC' SET lock_timeout TO '3s' AS $$
DECLARE
    spare text := parent || '_default';
    child text;
    month timestamptz;
    next_month timestamptz;
    history_end timestamptz;
    created int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('fincoach.partitions.' || parent, 0));
    SELECT substring(pg_get_expr(relpartbound, oid) FROM $re$TO \\('([^']+)'\\)$re$)::timestamptz INTO history_end
        FROM pg_class WHERE oid = to_regclass(quote_ident(parent || '_history'));
    FOR step IN 0 .. months - 1 LOOP
        month := date_trunc('month', from_month::timestamp) + make_interval(months => step);
        next_month := month + interval '1 month';
        child := parent || to_char(month, '_YYYY_MM');
        CONTINUE WHEN month < history_end OR to_regclass(quote_ident(child)) IS NOT NULL;
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', spare);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
        EXECUTE format(
            'WITH moved AS (DELETE FROM %I WHERE occurred_at >= %L AND occurred_at < %L RETURNING *)'
            ' INSERT INTO %I SELECT * FROM moved', spare, month, next_month, child);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            parent, child, month, next_month);
        created := created + 1;
    END LOOP;
    RETURN created;
END $$
"""

# Everything before the first separate month is in one partition: a replay of 1997 does not create 300 children.
SPLIT_BY_MONTH = """
DO $$
DECLARE
    first date := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '{back} months';
BEGIN
    CREATE TABLE {parent}_default PARTITION OF {parent} DEFAULT;
    EXECUTE format('CREATE TABLE {parent}_history PARTITION OF {parent} FOR VALUES FROM (MINVALUE) TO (%L)',
        first::timestamp AT TIME ZONE 'UTC');
    PERFORM ensure_month_partitions('{parent}', first, {months});
END $$
"""

# A JSON array, not joined text: two different entries never have the same one.
AUDIT_HASH = """
CREATE FUNCTION audit_hash(entry audit_log) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(sha256(convert_to(jsonb_build_array(
        entry.previous_hash, entry.id, to_char(entry.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        entry.actor, entry.action, entry.subject, entry.outcome, entry.details)::text, 'UTF8')), 'hex')
$$
"""

# The lock is held until the caller commits: the next entry sees this one or, after a rollback, takes its number.
APPEND_AUDIT = """
CREATE FUNCTION append_audit(actor text, action text, subject text, outcome text, details jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    last audit_log;
    entry audit_log;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('fincoach.audit', 0));
    SELECT * INTO last FROM audit_log ORDER BY id DESC LIMIT 1;
    entry.id := coalesce(last.id, 0) + 1;
    entry.recorded_at := clock_timestamp();
    entry.actor := actor;
    entry.action := action;
    entry.subject := subject;
    entry.outcome := outcome;
    entry.details := details;
    entry.previous_hash := coalesce(last.hash, repeat('0', 64));
    entry.hash := audit_hash(entry);
    INSERT INTO audit_log SELECT entry.*;
    RETURN entry.id;
END $$
"""

VERIFY_AUDIT = """
CREATE FUNCTION verify_audit() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT min(id) FROM (
        SELECT a.id, a.previous_hash, a.hash, audit_hash(a) AS expected_hash,
            row_number() OVER chain AS expected_id, lag(a.hash, 1, repeat('0', 64)) OVER chain AS expected_previous
        FROM audit_log AS a WINDOW chain AS (ORDER BY a.id)
    ) AS entries
    WHERE id <> expected_id OR previous_hash <> expected_previous OR hash <> expected_hash
$$
"""

REFUSE_AUDIT_CHANGE = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$
"""

AUDIT_TRIGGER = """
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""


def upgrade() -> None:
    """Create the functions, the first partitions and the trigger of the audit log."""
    op.execute(ENSURE_MONTH_PARTITIONS)
    for parent in PARTITIONED:
        op.execute(SPLIT_BY_MONTH.format(parent=parent, back=MONTHS_BACK, months=MONTHS_BACK + 1 + MONTHS_AHEAD))
    for statement in (AUDIT_HASH, APPEND_AUDIT, VERIFY_AUDIT, REFUSE_AUDIT_CHANGE, AUDIT_TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Drop trigger and functions, and the partitions with their rows: only a parent without children can go back."""
    op.execute("DROP TRIGGER audit_log_append_only ON audit_log")
    for function in (
        "refuse_audit_change()",
        "verify_audit()",
        "append_audit(text, text, text, text, jsonb)",
        "audit_hash(audit_log)",
        "ensure_month_partitions(text, date, int)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for parent in PARTITIONED:
        op.execute(DROP_CHILDREN.format(parent=parent))


DROP_CHILDREN = """
DO $$
DECLARE
    child regclass;
BEGIN
    FOR child IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{parent}'::regclass LOOP
        EXECUTE format('DROP TABLE %s', child);
    END LOOP;
END $$
"""
