"""The audit log: numbered without gaps, chained, append-only, and a change shows."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.tables import audit_log

APPEND = "SELECT append_audit(:actor, 'UpdateThresholds', 'spending', 'succeeded', CAST(:details AS jsonb))"
VERIFY = "SELECT verify_audit()"
GENESIS = "0" * 64


async def append(connection: AsyncConnection, actor: str = "alice", details: str = '{"threshold": 400}') -> int:
    """Append one entry; return its number."""
    number: int = await connection.scalar(sa.text(APPEND), {"actor": actor, "details": details})
    return number


async def filled(engine: AsyncEngine, entries: int = 5) -> None:
    """Append several entries, each in its own transaction."""
    for number in range(entries):
        async with engine.begin() as connection:
            await append(connection, f"actor-{number}")


async def broken(engine: AsyncEngine) -> int | None:
    """Return the first entry at which the chain breaks."""
    async with engine.connect() as connection:
        number: int | None = await connection.scalar(sa.text(VERIFY))
        return number


async def test_entries_are_numbered_from_one_and_chained(engine: AsyncEngine) -> None:
    """Entries are numbered from one and chained, so a removed entry leaves a trace."""
    await filled(engine)
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(audit_log).order_by(audit_log.c.id))).all()
    assert [row.id for row in rows] == [1, 2, 3, 4, 5]
    assert [row.previous_hash for row in rows] == [GENESIS, *(row.hash for row in rows[:-1])]
    assert await broken(engine) is None


async def test_the_hash_can_be_recomputed_outside_the_database(engine: AsyncEngine) -> None:
    """An auditor can recompute the hash outside the database."""
    async with engine.begin() as connection:
        await append(connection, "al|ice", '{"b": [1, 2.50], "a": "ü"}')
        row = (
            await connection.execute(sa.select(audit_log, sa.cast(audit_log.c.details, sa.Text).label("text")))
        ).one()
    moment = row.recorded_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    document = f'["{GENESIS}", 1, "{moment}", "al|ice", "UpdateThresholds", "spending", "succeeded", {row.text}]'
    assert hashlib.sha256(document.encode()).hexdigest() == row.hash


async def test_a_rolled_back_entry_leaves_no_gap(engine: AsyncEngine) -> None:
    """A rolled-back entry leaves no gap in the numbers."""
    await filled(engine, 1)
    async with engine.connect() as connection:
        assert await append(connection, "mallory") == 2
        await connection.rollback()
    async with engine.begin() as connection:
        assert await append(connection) == 2
    assert await broken(engine) is None


async def test_concurrent_entries_wait_for_each_other(engine: AsyncEngine) -> None:
    """Concurrent entries wait for each other and form one chain."""

    async def act(number: int) -> int:
        async with engine.begin() as connection:
            return await append(connection, f"actor-{number}")

    numbers = await asyncio.gather(*(act(number) for number in range(20)))
    assert sorted(numbers) == list(range(1, 21))
    assert await broken(engine) is None


@pytest.mark.parametrize(
    "change",
    ["UPDATE audit_log SET actor = 'bob' WHERE id = 2", "DELETE FROM audit_log WHERE false", "TRUNCATE audit_log"],
)
async def test_changes_are_refused(engine: AsyncEngine, change: str) -> None:
    """The application's account cannot change or delete entries."""
    await filled(engine, 2)
    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(sa.text(change))
    assert await broken(engine) is None


@pytest.mark.parametrize(
    ("change", "first_broken"),
    [
        ("UPDATE audit_log SET actor = 'bob' WHERE id = 2", 2),
        ("UPDATE audit_log SET details = '{\"threshold\": 1}' WHERE id = 3", 3),
        ("UPDATE audit_log SET recorded_at = recorded_at - interval '1 microsecond' WHERE id = 4", 4),
        ("DELETE FROM audit_log WHERE id = 3", 4),
        ("DELETE FROM audit_log WHERE id = 1", 2),
        ("UPDATE audit_log SET id = 9 WHERE id = 5", 9),
    ],
)
async def test_tampering_past_the_trigger_shows(engine: AsyncEngine, change: str, first_broken: int) -> None:
    """A change made with the trigger switched off breaks the chain visibly."""
    await filled(engine)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only"))
        await connection.execute(sa.text(change))
    assert await broken(engine) == first_broken


async def test_an_entry_that_was_inserted_by_hand_shows(engine: AsyncEngine) -> None:
    """An entry inserted by hand breaks the chain visibly."""
    await filled(engine, 2)
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "INSERT INTO audit_log SELECT 3, now(), 'bob', action, subject, outcome, details, hash, repeat('a', 64)"
                " FROM audit_log WHERE id = 2"
            )
        )
    assert await broken(engine) == 3
