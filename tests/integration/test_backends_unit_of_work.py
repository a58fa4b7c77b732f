"""Units of work on a real database: everything inside happens, or nothing does."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest
import sqlalchemy as sa

from backends.database.unit_of_work import Database
from schemas.errors import DatabaseAwayError, InvalidMessageError
from schemas.tables import audit_log, epochs, exceeded_limits, outbox, training_jobs
from schemas.topics import ALERTS
from schemas.vocabulary import Service
from stack.ports import free_port
from tests.integration.backends_topics import database_of


async def rows(database: Database, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
    """Return what a table holds, as another connection sees it."""
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(table))).all())


async def execute(database: Database, *statements: sa.Executable) -> None:
    """Execute statements in one transaction."""
    async with database.transaction() as work:
        for statement in statements:
            await work.connection.execute(statement)


async def drive(database: Database, question: str) -> None:
    """Ask over the driver's connection."""
    async with database.transaction() as work:
        await work.connection.execute(sa.text("SELECT 1"))
        await (await work.driver()).fetch(question)


async def test_a_transaction_that_fails_leaves_nothing_behind(database_url: str) -> None:
    """A failed transaction leaves no row, no announcement and no audit entry."""

    async def fail_in_the_end(database: Database) -> None:
        async with database.transaction() as work:
            await work.publish_raw(ALERTS, b"goal", b"{}")
            await work.audit(actor="a", action="b", subject="c", outcome="succeeded", details={})
            message = "after everything was written"
            raise ZeroDivisionError(message)

    async with database_of(Service.TRAINERS, database_url) as database:
        with pytest.raises(ZeroDivisionError):
            await fail_in_the_end(database)
        assert await rows(database, outbox) == []
        assert await rows(database, audit_log) == []


async def test_state_and_announcement_are_committed_together(database_url: str) -> None:
    """State and announcement are committed together."""
    async with database_of(Service.TRAINERS, database_url) as database:
        async with database.transaction() as work:
            await work.publish_raw(ALERTS, b"goal", b'{"a":1}', headers={"reason": "r"})
            await work.publish_raw(ALERTS, None, b"")
            await work.audit(actor="ann", action="act", subject="goal", outcome="succeeded", details={"why": 1})
            assert await rows(database, outbox) == []  # nobody sees it before the end
        first, second = await rows(database, outbox)
        [entry] = await rows(database, audit_log)
    assert (first.service, first.topic, first.key, first.payload) == ("trainers", ALERTS.name, b"goal", b'{"a":1}')
    assert (first.headers, first.published_at) == ({"reason": "r"}, None)
    assert (second.key, second.payload, second.headers) == (None, b"", {})
    assert (entry.actor, entry.action, entry.details) == ("ann", "act", {"why": 1})


async def test_the_drivers_connection_is_inside_the_transaction(database_url: str) -> None:
    """A bulk copy is rolled back with its transaction."""

    async def copy_and_fail(database: Database) -> None:
        async with database.transaction() as work:
            await work.connection.execute(sa.text("SELECT 1"))
            driver = await work.driver()
            row = ("streams", ALERTS.name, b"{}")
            await driver.copy_records_to_table("outbox", records=[row], columns=["service", "topic", "payload"])
            assert await work.connection.scalar(sa.select(sa.func.count()).select_from(outbox)) == 1
            raise ZeroDivisionError

    async with database_of(Service.STREAMS, database_url) as database:
        with pytest.raises(ZeroDivisionError):
            await copy_and_fail(database)
        assert await rows(database, outbox) == []


async def test_a_question_changes_nothing(database_url: str) -> None:
    """A reading connection changes nothing."""
    async with database_of(Service.ADMIN, database_url) as database:
        async with database.reading() as connection:
            await connection.execute(outbox.insert().values(service="admin", topic="t", payload=b"x"))
        assert await rows(database, outbox) == []


async def test_a_frozen_owner_of_a_lock_stalls_nobody_for_long(database_url: str) -> None:
    """A process that hangs inside a transaction blocks others only for a limited time."""
    lock = sa.text("SELECT pg_advisory_xact_lock(1, 1)")

    async def freeze_while_others_wait(frozen: Database, other: Database) -> None:
        async with frozen.transaction() as work:
            await work.connection.execute(lock)
            async with asyncio.timeout(10), other.transaction() as successor:
                await successor.connection.execute(lock)
            await work.publish_raw(ALERTS, None, b"the frozen one wakes up")

    async with (
        database_of(Service.STREAMS, database_url, name="frozen", idle_in_transaction_seconds=0.3) as frozen,
        database_of(Service.STREAMS, database_url, name="next") as other,
    ):
        with pytest.raises(DatabaseAwayError):
            await freeze_while_others_wait(frozen, other)
        assert await rows(other, outbox) == []


async def test_a_database_that_is_away_is_recognised() -> None:
    """A database that is away raises DatabaseAwayError."""
    url = f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none"
    async with database_of(Service.STREAMS, url) as database:
        with pytest.raises(DatabaseAwayError):
            async with database.transaction():
                pass


async def test_a_connection_that_the_server_ended_is_replaced(database_url: str) -> None:
    """A connection that the server ended is replaced without an error."""
    async with (
        database_of(Service.STREAMS, database_url) as database,
        database_of(Service.ADMIN, database_url) as admin,
    ):
        async with database.reading() as connection:
            pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
        async with admin.reading() as connection:
            assert await connection.scalar(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        async with database.reading() as connection:
            assert await connection.scalar(sa.text("SELECT pg_backend_pid()")) != pid
            assert await connection.scalar(sa.text("SHOW application_name")) == "test"


ROW = {"service": "admin", "topic": "t", "payload": b"x"}
REFUSED: dict[str, sa.Executable] = {
    "too long": outbox.insert().values(ROW | {"topic": "t" * 300}),
    "out of range": training_jobs.insert().values(model_type="goal", epoch=2**31),
    "no number": sa.text("SELECT CAST('x' AS int)"),
    "more than JSON holds": sa.text("SELECT CAST('1e200000' AS jsonb)"),
    "a character that texts do not have": outbox.insert().values(ROW | {"topic": "a\0b"}),
    "nothing": outbox.insert().values(service="admin", topic="t"),
    "against a rule": outbox.insert().values(ROW | {"service": "kitchen"}),
    "about what is not there": epochs.insert().values(
        model_type="goal", epoch=1, training_dataset_id=uuid.UUID(int=1), evaluation_id=uuid.UUID(int=2), event_id=uuid.UUID(int=3),
        counted=1, threshold=1, quality_score=1, ranges=[],
    ),
}  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED.values(), ids=list(REFUSED))
async def test_what_the_database_can_never_hold_is_an_invalid_message(
    database_url: str, statement: sa.Executable
) -> None:
    """A record that no column or rule takes is put aside with the database's own words, not tried for ever."""
    async with database_of(Service.ADMIN, database_url) as database:
        with pytest.raises(InvalidMessageError, match="the database cannot hold it: ") as caught:
            await execute(database, statement)
        assert caught.value.reason == "invalid_field"
        assert await rows(database, outbox) == []


@pytest.mark.parametrize("question", ["SELECT 1 / 0", "SELECT repeat('x', 300)::jsonb"])
async def test_the_drivers_own_words_are_translated_too(database_url: str, question: str) -> None:
    """A bulk statement, which goes past SQLAlchemy, ends as any other one does."""
    async with database_of(Service.STREAMS, database_url) as database:
        with pytest.raises(InvalidMessageError):
            await drive(database, question)
        with pytest.raises(asyncpg.UndefinedTableError):
            await drive(database, "SELECT * FROM nowhere")


async def test_a_wrong_statement_is_a_bug(database_url: str) -> None:
    """A mistake of ours, or what only a mistake can bring about, stops the process: it is neither waited for nor put aside."""
    twice = exceeded_limits.insert().values(producer="p", alert_id=uuid.UUID(int=1), detail="")
    async with database_of(Service.ADMIN, database_url) as database:
        for wrong in (sa.text("SELECT FROM"), sa.text("SELECT * FROM nowhere")):
            with pytest.raises(sa.exc.ProgrammingError):
                await execute(database, wrong)
        with pytest.raises(sa.exc.IntegrityError):
            await execute(database, twice, twice)


AWAY = {
    "ended": "SELECT pg_terminate_backend(pg_backend_pid())",
    "cancelled": "SELECT pg_cancel_backend(pg_backend_pid())",
    "locked": "LOCK TABLE outbox NOWAIT",
}


@pytest.mark.parametrize("statement", AWAY.values(), ids=list(AWAY))
async def test_what_another_try_may_mend_is_retried(database_url: str, statement: str) -> None:
    """A server that restarts, a statement that is cancelled and a lock that is held are over in a moment."""
    async with (
        database_of(Service.ADMIN, database_url) as database,
        database_of(Service.ADMIN, database_url, name="other") as other,
        other.transaction() as holder,
    ):
        await holder.connection.execute(sa.text("LOCK TABLE outbox"))
        with pytest.raises(DatabaseAwayError):
            await execute(database, sa.text(statement))


async def test_what_the_block_itself_raises_comes_out_as_it_is(database_url: str) -> None:
    """An error of the caller's own block comes out unchanged."""

    async def write_and_raise(database: Database, error: Exception) -> None:
        async with database.transaction() as work:
            await work.connection.execute(outbox.insert().values(ROW))
            raise error

    async with database_of(Service.ADMIN, database_url) as database:
        for error in (ZeroDivisionError("a bug"), InvalidMessageError("not_json", "no JSON"), LookupError("gone")):
            with pytest.raises(type(error)) as caught:
                await write_and_raise(database, error)
            assert caught.value is error
        assert await rows(database, outbox) == []
