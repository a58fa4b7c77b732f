"""Creates, checks and removes the database schema: the product plan's migration command.

``python -m migrations.create_continuous_learning_tables create|verify|rollback|status [--database-url URL] [--json]``

Exit status: 0 done, 1 the schema differs from the expected one, 2 wrong use or not confirmed, 3 the database did not
answer or refused. Programs call the four functions; each opens and closes its own connection.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, make_url

from backends.database.engine import DATABASE_AWAY_ERRORS, create_engine
from backends.settings import ProcessSettings
from migrations.catalog import differences
from schemas.tables import PARTITIONED_TABLES, metadata

MONTHS_BACK = 13
MONTHS_AHEAD = 3
EXIT_DONE, EXIT_DIFFERENT, EXIT_REFUSED, EXIT_AWAY = range(4)
Result = TypeVar("Result")


class SchemaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a database: its revision and the newest one, its tables, and its partitions (name → estimated rows)."""

    revision: str | None
    newest: str
    up_to_date: bool
    tables: int
    expected_tables: int
    partitions: dict[str, int]


async def create(url: str) -> str:
    """Bring the database to the newest revision and create the partitions that are due; return the revision.

    May be repeated, and called by several processes at once (but not concurrently within one process: Alembic's context
    is global). Everything happens in one transaction.
    """
    return await _within(url, _create, commit=True)


async def verify(url: str) -> list[str]:
    """Return a sentence for each difference between the live schema and ``schemas.tables``."""
    return await _within(url, _verify, commit=False)


async def rollback(url: str) -> None:
    """Remove everything that :func:`create` created, with all data, in one transaction."""
    await _within(url, _rollback, commit=True)


async def status(url: str) -> SchemaStatus:
    """Return the state of the database; change nothing."""
    return await _within(url, _status, commit=False)


async def _within(url: str, work: Callable[[Connection], Result], *, commit: bool) -> Result:
    address = make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    engine = create_engine(address, application_name="fincoach-migrations", idle_in_transaction_seconds=60)
    try:
        async with engine.connect() as connection:
            result = await connection.run_sync(work)
            await (connection.commit() if commit else connection.rollback())
            return result
    finally:
        await engine.dispose()


def _config(connection: Connection | None = None) -> Config:
    """Return Alembic's settings without a file, so that an installed package migrates like a checkout."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _newest() -> str:
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _create(connection: Connection) -> str:
    command.upgrade(_config(connection), "head")
    due = sa.text(
        "SELECT ensure_month_partitions(:parent, (now() AT TIME ZONE 'UTC' - make_interval(months => :back))::date, :months)"
    )
    for parent in PARTITIONED_TABLES:
        connection.execute(due, {"parent": parent, "back": MONTHS_BACK, "months": MONTHS_BACK + 1 + MONTHS_AHEAD})
    return _newest()


def _verify(connection: Connection) -> list[str]:
    revision, newest = _revision(connection), _newest()
    behind = [] if revision == newest else [f"revision is {revision}, the newest is {newest}: run create"]
    return behind + differences(connection)


def _rollback(connection: Connection) -> None:
    command.downgrade(_config(connection), "base")
    connection.execute(sa.text("DROP TABLE alembic_version"))


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _status(connection: Connection) -> SchemaStatus:
    revision, newest = _revision(connection), _newest()
    known = sa.text(
        "SELECT count(*) FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(quote_ident(name)) IS NOT NULL"
    )
    children = sa.text(
        "SELECT c.relname, greatest(c.reltuples, 0)::bigint AS rows FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent::regclass::text = ANY(:parents) ORDER BY c.relname"
    )
    return SchemaStatus(
        revision=revision,
        newest=newest,
        up_to_date=revision == newest,
        tables=connection.scalar(known, {"names": list(metadata.tables)}) or 0,
        expected_tables=len(metadata.tables),
        partitions={
            row.relname: row.rows for row in connection.execute(children, {"parents": list(PARTITIONED_TABLES)})
        },
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    url = options.database_url or ProcessSettings().database_url.get_secret_value()
    try:
        return COMMANDS[options.command](url, options)
    except DATABASE_AWAY_ERRORS as error:
        shown = make_url(url).render_as_string(hide_password=True)
        sys.stderr.write(f"The database at {shown} failed: {error}\n")
        return EXIT_AWAY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="create_continuous_learning_tables", description="Create, check or remove the database schema."
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--database-url", help="address of PostgreSQL; default: FINCOACH_DATABASE_URL")
    shared.add_argument("--json", action="store_true", help="answer with one JSON object")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in HELP.items():
        below = commands.add_parser(name, help=text, parents=[shared])
        if name == "rollback":
            below.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _run_create(url: str, options: argparse.Namespace) -> int:
    revision = asyncio.run(create(url))
    _answer(options, {"revision": revision}, f"The schema is at revision {revision}.")
    return EXIT_DONE


def _run_verify(url: str, options: argparse.Namespace) -> int:
    found = asyncio.run(verify(url))
    sentence = "\n".join([*found, f"{len(found)} differences."]) if found else "The schema is as expected."
    _answer(options, {"ok": not found, "differences": found}, sentence)
    return EXIT_DIFFERENT if found else EXIT_DONE


def _run_rollback(url: str, options: argparse.Namespace) -> int:
    if not (options.yes or _confirmed(url)):
        sys.stderr.write("Nothing was removed. Confirm with yes, or pass --yes.\n")
        return EXIT_REFUSED
    asyncio.run(rollback(url))
    _answer(options, {"removed": True}, "All tables, functions and data were removed.")
    return EXIT_DONE


def _run_status(url: str, options: argparse.Namespace) -> int:
    found = asyncio.run(status(url))
    lines = [
        f"revision   {found.revision or 'none'} (newest {found.newest})",
        f"tables     {found.tables} of {found.expected_tables}",
        f"partitions {len(found.partitions)}",
    ]
    _answer(options, found, "\n".join(lines))
    return EXIT_DONE if found.up_to_date else EXIT_DIFFERENT


def _confirmed(url: str) -> bool:
    shown = make_url(url).render_as_string(hide_password=True)
    sys.stderr.write(f"This removes all tables and all data of {shown}. Type yes to continue: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == "yes"


def _answer(options: argparse.Namespace, document: object, sentence: str) -> None:
    sys.stdout.write((msgspec.json.encode(document).decode() if options.json else sentence) + "\n")


HELP = {
    "create": "bring the schema to the newest revision",
    "verify": "list every difference from the expected schema",
    "rollback": "remove the schema and all data",
    "status": "show the state of the schema",
}
COMMANDS: dict[str, Callable[[str, argparse.Namespace], int]] = {
    "create": _run_create,
    "verify": _run_verify,
    "rollback": _run_rollback,
    "status": _run_status,
}

if __name__ == "__main__":
    sys.exit(main())
