"""The migration command: what it makes is what the tables say, and it can be undone."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from migrations.create_continuous_learning_tables import SchemaStatus, create, main, rollback, status, verify
from modelkit.registry import definition_of
from schemas.tables import PARTITIONED_TABLES, metadata
from schemas.thresholds import ThresholdRule
from tests.four_models import FOUR_MODELS

ALL_TABLES = len(metadata.tables)
LEFT_BEHIND = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
)


async def run(engine: AsyncEngine, statement: str) -> None:
    """Carry out one statement and commit."""
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))


async def names(engine: AsyncEngine, query: str) -> list[str]:
    """Return the first column of ``query``."""
    async with engine.connect() as connection:
        return [str(name) for name in (await connection.scalars(sa.text(query))).all()]


def alembic_differences(connection: Connection) -> list[str]:
    """Return what Alembic would write into a new revision, partition children left out."""

    def is_ours(_item: object, name: str | None, kind: str, *_: object) -> bool:
        children = tuple(f"{parent}_" for parent in PARTITIONED_TABLES)
        return kind != "table" or not (name or "").startswith(children)

    options = {"include_object": is_ours, "compare_type": True, "compare_server_default": True}
    return [str(each) for each in compare_metadata(MigrationContext.configure(connection, opts=options), metadata)]


async def test_the_sum_of_the_migrations_is_the_schema(engine: AsyncEngine) -> None:
    """All migrations together yield the schema that the code uses."""
    async with engine.connect() as connection:
        assert await connection.run_sync(alembic_differences) == []


async def test_a_created_schema_is_verified_without_a_difference(migrated_database: str) -> None:
    """A newly created schema verifies without a difference."""
    assert await verify(migrated_database) == []


async def test_up_down_up(migrated_database: str, engine: AsyncEngine) -> None:
    """A rollback removes everything, and the schema can be created again."""
    await rollback(migrated_database)
    left = await names(engine, LEFT_BEHIND)
    await create(migrated_database)
    assert left == []
    assert await verify(migrated_database) == []


async def test_creating_twice_at_once_is_creating_once(empty_database: str) -> None:
    """Two processes that create the schema at once create it, and its seeds, once."""
    command = (
        sys.executable,
        "-m",
        "migrations.create_continuous_learning_tables",
        "create",
        "--database-url",
        empty_database,
    )
    both = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL) for _ in range(2)]
    assert [await each.wait() for each in both] == [0, 0]
    assert await verify(empty_database) == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP INDEX ix_outbox_unpublished", "index outbox.ix_outbox_unpublished is missing"),
        ("DROP TABLE panes", "table panes is missing"),
        ("ALTER TABLE epochs DROP COLUMN counted", "column epochs.counted is missing"),
        ("ALTER TABLE epochs ADD COLUMN stray int", "column epochs.stray is not expected"),
        ("ALTER TABLE ledger ALTER COLUMN next_offset TYPE int", "column ledger.next_offset is 'integer NOT NULL'"),
        (
            "ALTER TABLE thresholds DROP CONSTRAINT ck_thresholds_threshold_positive",
            "ck_thresholds_threshold_positive is missing",
        ),
        ("ALTER TABLE outbox ALTER COLUMN headers DROP DEFAULT", "column outbox.headers is 'jsonb NOT NULL'"),
        ("DROP FUNCTION append_audit", "function append_audit(text, text, text, text, jsonb) is missing"),
        (
            "ALTER TABLE audit_log DISABLE TRIGGER ALL",
            "trigger audit_log.audit_log_append_only is missing or switched off",
        ),
        ("DELETE FROM thresholds WHERE model_type = 'goal'", "seed of goal is missing"),
        (
            "UPDATE training_datasets SET closed_at = now() WHERE dataset_type = 'spending'",
            "seed of spending is missing",
        ),
        ("DROP TABLE predictions_default", "partition predictions_default is missing"),
    ],
)
async def test_verify_names_what_is_wrong(migrated_database: str, engine: AsyncEngine, damage: str, named: str) -> None:
    """Verification names what is wrong with a damaged schema."""
    await run(engine, damage)
    found = await verify(migrated_database)
    assert any(named in each for each in found), found


async def test_verify_leaves_nothing_behind(migrated_database: str, engine: AsyncEngine) -> None:
    """Verification leaves the database unchanged."""
    await verify(migrated_database)
    assert await names(engine, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fincoach%'") == []


def rule_of(row: sa.Row[Any]) -> ThresholdRule:
    """Return a row of thresholds as the rule that it is."""
    given = {name: getattr(row, name) for name in ThresholdRule.__struct_fields__}
    shares = {name: float(given[name]) for name in ("quality_gate", "user_share")}
    return ThresholdRule(**{**given, **shares, "blackouts": tuple(row.blackouts)})


async def test_seeds_are_the_plans_thresholds_and_one_open_data_set_each(engine: AsyncEngine) -> None:
    """A new installation has the planned thresholds and one open data set per model."""
    async with engine.connect() as connection:
        thresholds = (await connection.execute(sa.select(metadata.tables["thresholds"]))).all()
        data_sets = (await connection.execute(sa.select(metadata.tables["training_datasets"]))).all()
    rules = {model: definition_of(model).threshold for model in FOUR_MODELS}
    assert {row.model_type: rule_of(row) for row in thresholds} == rules
    assert {row.dataset_type: row.threshold for row in data_sets} == {
        name: rule.threshold for name, rule in rules.items()
    }
    assert {(row.epoch, row.data_count, row.closed_at) for row in data_sets} == {(1, 0, None)}


async def test_status_before_and_after(empty_database: str) -> None:
    """The status tells an empty database from a migrated one."""
    before = await status(empty_database)
    await create(empty_database)
    after = await status(empty_database)
    assert (before.revision, before.up_to_date, before.tables) == (None, False, 0)
    assert (after.revision, after.up_to_date, after.tables) == (after.newest, True, len(metadata.tables))
    assert "predictions_history" in after.partitions


async def command_line(*arguments: str) -> int:
    """Run the command as a shell would, which has no event loop of its own."""
    return await asyncio.to_thread(main, list(arguments))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Give what was written to standard output since the last call."""
    return lambda: capsys.readouterr().out


async def test_the_command_line_creates_verifies_and_removes(empty_database: str, said: Callable[[], str]) -> None:
    """The exit status says whether the schema is there and right."""
    address = ("--database-url", empty_database)
    assert await command_line("status", *address) == 1
    assert await command_line("verify", *address) == 1
    assert await command_line("create", *address) == 0
    assert await command_line("verify", *address) == 0
    said()
    assert await command_line("status", "--json", *address) == 0
    assert msgspec.json.decode(said(), type=SchemaStatus).up_to_date
    assert await command_line("rollback", "--yes", *address) == 0
    assert await command_line("status", *address) == 1


async def test_verify_answers_programs(migrated_database: str, engine: AsyncEngine, said: Callable[[], str]) -> None:
    """Verification can answer in a form for programs."""
    await run(engine, "DROP INDEX ix_outbox_unpublished")
    assert await command_line("verify", "--json", "--database-url", migrated_database) == 1
    answer = msgspec.json.decode(said())
    assert answer["ok"] is False
    assert len(answer["differences"]) == 1


@pytest.mark.parametrize(
    ("typed", "exit_status", "tables"), [("no\n", 2, ALL_TABLES), ("", 2, ALL_TABLES), ("yes\n", 0, 0)]
)
async def test_rollback_asks_first(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch, typed: str, exit_status: int, tables: int
) -> None:
    """A rollback asks before it removes data."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert await command_line("rollback", "--database-url", migrated_database) == exit_status
    assert (await status(migrated_database)).tables == tables


async def test_a_database_that_is_away_is_said_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    """An unreachable database is reported in a sentence without its password."""
    assert await command_line("status", "--database-url", "postgresql://fincoach:hidden@127.0.0.1:1/nothing") == 3
    told = capsys.readouterr().err
    assert "127.0.0.1:1" in told
    assert "hidden" not in told


async def test_a_migration_does_not_wait_for_a_lock_for_ever(migrated_database: str, engine: AsyncEngine) -> None:
    """A migration gives up waiting for a lock after a limited time."""
    async with engine.begin() as connection:
        await connection.execute(sa.text("SELECT count(*) FROM panes"))
        with pytest.raises(sa.exc.DBAPIError, match="lock timeout"):
            await rollback(migrated_database)
    assert await verify(migrated_database) == []
