"""Reads the live schema of a database as names and definitions, and compares it with the wanted one.

The wanted state is not parsed from Python: PostgreSQL builds ``schemas.tables`` in a separate schema inside a
transaction that is rolled back, and both are read through the same catalog queries.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schemas.tables import PARTITIONED_TABLES, metadata

WANTED_SCHEMA = "fincoach_wanted"
FUNCTIONS = (
    "ensure_month_partitions(text, date, integer)",
    "append_audit(text, text, text, text, jsonb)",
    "verify_audit()",
    "audit_hash(audit_log)",
)
TRIGGERS = (("audit_log", "audit_log_append_only"),)

# Rows of the queries: kind, table, name, definition.
Facts = dict[tuple[str, str, str], str]

TABLES = """
SELECT 'table', relname, '', coalesce('partitioned by ' || pg_get_partkeydef(oid), 'plain')
FROM pg_class WHERE relnamespace = to_regnamespace(:schema) AND relkind IN ('r', 'p')
"""
COLUMNS = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
    || CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY ' || a.attidentity::text END
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
CONSTRAINTS = """
SELECT 'constraint', c.relname, o.conname, pg_get_constraintdef(o.oid)
FROM pg_constraint AS o JOIN pg_class AS c ON c.oid = o.conrelid
WHERE c.relnamespace = to_regnamespace(:schema) AND o.contype IN ('c', 'f', 'p', 'u')
"""
INDEXES = """
SELECT 'index', tablename, indexname, replace(indexdef, quote_ident(schemaname) || '.', '')
FROM pg_indexes WHERE schemaname = :schema
"""


def facts(connection: Connection, schema: str) -> Facts:
    """Return the facts about ``schema``, for the tables of ``schemas.tables``."""
    connection.execute(sa.text("SELECT set_config('search_path', quote_ident(:schema), true)"), {"schema": schema})
    return {
        (kind, table, name): definition
        for query in (TABLES, COLUMNS, CONSTRAINTS, INDEXES)
        for kind, table, name, definition in connection.execute(sa.text(query), {"schema": schema})
        if table in metadata.tables
    }


def wanted_facts(connection: Connection) -> Facts:
    """Return the facts about ``schemas.tables`` in this version of PostgreSQL; leaves nothing behind."""
    attempt = connection.begin_nested()
    try:
        connection.execute(sa.text(f"CREATE SCHEMA {WANTED_SCHEMA}"))
        connection.execute(sa.text(f"SET LOCAL search_path TO {WANTED_SCHEMA}"))
        metadata.create_all(connection, checkfirst=False)
        return facts(connection, WANTED_SCHEMA)
    finally:
        attempt.rollback()


def differences(connection: Connection) -> list[str]:
    """Return a sentence for each difference between the live schema and the wanted one."""
    schema = connection.scalar(sa.text("SELECT current_schema()"))
    wanted = wanted_facts(connection)
    live = facts(connection, schema or "public")
    found = list(_compare(wanted, live))
    missing = {name for name in metadata.tables if ("table", name, "") not in live}
    found += _missing_functions(connection) + _missing_triggers(connection)
    found += [
        each for name in PARTITIONED_TABLES if name not in missing for each in _missing_partitions(connection, name)
    ]
    if not missing & {"thresholds", "training_datasets"}:
        found += _missing_seeds(connection)
    if not found:
        found += _broken_audit(connection)
    return found


def _compare(wanted: Facts, live: Facts) -> Iterator[str]:
    lost_tables = {table for kind, table, _ in wanted if kind == "table" and (kind, table, "") not in live}
    for key in sorted(wanted.keys() | live.keys()):
        kind, table, name = key
        what = f"{kind} {table}.{name}" if name else f"{kind} {table}"
        if table in lost_tables and kind != "table":
            continue
        if key not in live:
            yield f"{what} is missing: {wanted[key]}"
        elif key not in wanted:
            yield f"{what} is not expected: {live[key]}"
        elif live[key] != wanted[key]:
            yield f"{what} is {live[key]!r}, expected {wanted[key]!r}"


def _missing_functions(connection: Connection) -> list[str]:
    known = sa.text("SELECT to_regprocedure(:name) IS NOT NULL")
    return [f"function {name} is missing" for name in FUNCTIONS if not connection.scalar(known, {"name": name})]


def _missing_triggers(connection: Connection) -> list[str]:
    enabled = sa.text(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(:table) AND tgname = :name AND tgenabled IN ('O', 'A')"
    )
    return [
        f"trigger {table}.{name} is missing or switched off"
        for table, name in TRIGGERS
        if not connection.scalar(enabled, {"table": table, "name": name})
    ]


def _missing_partitions(connection: Connection, parent: str) -> list[str]:
    query = "SELECT to_regclass(:name) IS NOT NULL"
    month = connection.scalar(sa.text("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"))
    children = [f"{parent}_{suffix}" for suffix in ("default", "history", month)]
    return [
        f"partition {name} is missing" for name in children if not connection.scalar(sa.text(query), {"name": name})
    ]


def _missing_seeds(connection: Connection) -> list[str]:
    models = sa.text(
        "SELECT model_type FROM models AS known"
        " WHERE NOT EXISTS (SELECT FROM thresholds WHERE model_type = known.model_type)"
        " OR NOT EXISTS (SELECT FROM training_datasets WHERE dataset_type = known.model_type AND closed_at IS NULL)"
    )
    return [
        f"seed of {model} is missing: its threshold or its open training data set"
        for model in connection.scalars(models)
    ]


def _broken_audit(connection: Connection) -> list[str]:
    broken = connection.scalar(sa.text("SELECT verify_audit()"))
    return [] if broken is None else [f"audit_log breaks its chain at entry {broken}"]
