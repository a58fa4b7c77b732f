"""Renders the tables as a page: purpose, writer and columns of each."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.dialects import postgresql

from schemas.tables import PARTITIONED_TABLES, metadata
from tools.reference.markdown import page, table

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it without types


def overview_row(each: Table) -> list[str]:
    """Return one table as a row of the overview."""
    return [f"[`{each.name}`](#{each.name})", str(each.info["owner"]), str(each.info["purpose"])]


def column_row(column: Column[object]) -> list[str]:
    """Return one column as a row: its type in PostgreSQL and its properties."""
    default = getattr(column.server_default, "arg", None)
    facts = [
        "key" if column.primary_key else "",
        "" if column.nullable else "not null",
        f"default `{getattr(default, 'text', default)}`" if default is not None else "",
        *(referred(key) for key in column.foreign_keys),
    ]
    return [f"`{column.name}`", column.type.compile(DIALECT).lower(), ", ".join(fact for fact in facts if fact)]


def referred(key: ForeignKey) -> str:
    """Return the target of a foreign key in words."""
    return f"refers to `{key.target_fullname}`"


def section(each: Table) -> str:
    """Return the section of one table."""
    partitioned = " Partitioned by month of `occurred_at`." if each.name in PARTITIONED_TABLES else ""
    indexes = sorted(str(index.name) for index in each.indexes)
    listed = "\n\nIndexes: " + ", ".join(f"`{name}`" for name in indexes) + "." if indexes else ""
    columns = table(["column", "type", ""], [column_row(column) for column in each.columns])
    head = f"## {each.name}\n\n{each.info['purpose']}{partitioned} Written by: {each.info['owner']}."
    return f"{head}\n\n{columns}{listed}"


def render() -> str:
    """Return docs/reference/tables.md."""
    tables = sorted(metadata.tables.values(), key=lambda each: each.name)
    overview = table(["table", "written by", "what it is for"], [overview_row(each) for each in tables])
    return page(
        "Tables",
        "How they are created, checked and partitioned: [database](../database.md).",
        overview,
        *(section(each) for each in tables),
    )
