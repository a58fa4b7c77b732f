"""Units of work on a real database: everything inside happens, or nothing does."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from backends.database.engine import DATABASE_AWAY_ERRORS
from backends.database.unit_of_work import Database
from schemas.tables import audit_log, outbox
from schemas.topics import ALERTS
from schemas.vocabulary import Room
from stack.ports import free_port
from tests.integration.backends_topics import database_of


async def rows(database: Database, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
    """Return what a table holds, as another connection sees it."""
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(table))).all())


async def test_a_transaction_that_fails_leaves_nothing_behind(database_url: str) -> None:
    """Something would be announced that is not true, or be audited that did not happen."""

    async def fail_in_the_end(database: Database) -> None:
        async with database.transaction() as work:
            await work.publish_raw(ALERTS, b"goal", b"{}")
            await work.audit(actor="a", action="b", subject="c", outcome="succeeded", details={})
            message = "after everything was written"
            raise ZeroDivisionError(message)

    async with database_of(Room.TRAINERS, database_url) as database:
        with pytest.raises(ZeroDivisionError):
            await fail_in_the_end(database)
        assert await rows(database, outbox) == []
        assert await rows(database, audit_log) == []


async def test_state_and_announcement_are_committed_together(database_url: str) -> None:
    """A decision would be made and nobody be told."""
    async with database_of(Room.TRAINERS, database_url) as database:
        async with database.transaction() as work:
            await work.publish_raw(ALERTS, b"goal", b'{"a":1}', headers={"reason": "r"})
            await work.publish_raw(ALERTS, None, b"")
            await work.audit(actor="ann", action="act", subject="goal", outcome="succeeded", details={"why": 1})
            assert await rows(database, outbox) == []  # nobody sees it before the end
        first, second = await rows(database, outbox)
        [entry] = await rows(database, audit_log)
    assert (first.room, first.topic, first.key, first.payload) == ("trainers", ALERTS.name, b"goal", b'{"a":1}')
    assert (first.headers, first.published_at) == ({"reason": "r"}, None)
    assert (second.key, second.payload, second.headers) == (None, b"", {})
    assert (entry.actor, entry.action, entry.details) == ("ann", "act", {"why": 1})


async def test_the_drivers_connection_is_inside_the_transaction(database_url: str) -> None:
    """A bulk copy would stay although its batch was rolled back."""

    async def copy_and_fail(database: Database) -> None:
        async with database.transaction() as work:
            await work.connection.execute(sa.text("SELECT 1"))
            driver = await work.driver()
            row = ("streams", ALERTS.name, b"{}")
            await driver.copy_records_to_table("outbox", records=[row], columns=["room", "topic", "payload"])
            assert await work.connection.scalar(sa.select(sa.func.count()).select_from(outbox)) == 1
            raise ZeroDivisionError

    async with database_of(Room.STREAMS, database_url) as database:
        with pytest.raises(ZeroDivisionError):
            await copy_and_fail(database)
        assert await rows(database, outbox) == []


async def test_a_question_changes_nothing(database_url: str) -> None:
    """A list of the command line could leave something behind."""
    async with database_of(Room.ADMIN, database_url) as database:
        async with database.reading() as connection:
            await connection.execute(outbox.insert().values(room="admin", topic="t", payload=b"x"))
        assert await rows(database, outbox) == []


async def test_a_frozen_owner_of_a_lock_stalls_nobody_for_long(database_url: str) -> None:
    """A process that hangs inside a transaction would stop its room until somebody kills it."""
    lock = sa.text("SELECT pg_advisory_xact_lock(1, 1)")

    async def freeze_while_others_wait(frozen: Database, other: Database) -> None:
        async with frozen.transaction() as work:
            await work.connection.execute(lock)
            async with asyncio.timeout(10), other.transaction() as successor:
                await successor.connection.execute(lock)
            await work.publish_raw(ALERTS, None, b"the frozen one wakes up")

    async with (
        database_of(Room.STREAMS, database_url, name="frozen", idle_in_transaction_seconds=0.3) as frozen,
        database_of(Room.STREAMS, database_url, name="next") as other,
    ):
        with pytest.raises(DATABASE_AWAY_ERRORS):
            await freeze_while_others_wait(frozen, other)
        assert await rows(other, outbox) == []


async def test_a_database_that_is_away_is_recognised() -> None:
    """A worker would take a database that restarts for a bug, and stop."""
    url = f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none"
    async with database_of(Room.STREAMS, url) as database:
        with pytest.raises(DATABASE_AWAY_ERRORS):
            async with database.transaction():
                pass


async def test_a_connection_that_the_server_ended_is_replaced(database_url: str) -> None:
    """After a restart of the database each pooled connection would fail once more."""
    async with database_of(Room.STREAMS, database_url) as database, database_of(Room.ADMIN, database_url) as admin:
        async with database.reading() as connection:
            pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
        async with admin.reading() as connection:
            assert await connection.scalar(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        async with database.reading() as connection:
            assert await connection.scalar(sa.text("SELECT pg_backend_pid()")) != pid
            assert await connection.scalar(sa.text("SHOW application_name")) == "test"
