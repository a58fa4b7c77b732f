"""Commands on a real database: who acts, once, and what is answered and written down."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import sqlalchemy as sa

from backends.broker.interface import Record
from backends.clock import ManualClock
from backends.control import CommandHandler
from backends.database.unit_of_work import Database, UnitOfWork
from schemas import codec
from schemas.errors import CommandRejectedError, InvalidMessageError, RetryLaterError
from schemas.messages.control import (
    Command,
    CommandOutcome,
    CommandRejected,
    CommandResult,
    CommandSucceeded,
    DeployModel,
    RollBackModel,
    TriggerTraining,
)
from schemas.tables import audit_log, command_inbox, outbox
from schemas.topics import ALERTS, CONTROL, CONTROL_RESULTS
from schemas.vocabulary import ModelType, Service
from stack.ports import free_port
from tests.four_models import FOUR_MODELS
from tests.integration.backends_topics import database_of

NOON = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)


class Executor:
    """Carries commands out: writes a row that shows it, then refuses or hangs if it is told to."""

    def __init__(self, *, refusal: str | None = None) -> None:
        self.acted: list[tuple[UUID, ModelType]] = []
        self.entered = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._refusal = refusal

    async def __call__(self, work: UnitOfWork, command: Any, model_type: ModelType) -> CommandOutcome:  # noqa: ANN401 - any command
        """Act."""
        self.acted.append((command.event_id, model_type))
        await work.publish_raw(ALERTS, b"effect", str(command.event_id).encode())
        self.entered.set()
        await self.may_go_on.wait()
        if self._refusal is not None:
            raise CommandRejectedError(self._refusal)
        return CommandOutcome(detail="rolled back to 1.0.0", result={"version": "1.0.0"})


def handler(database: Database, executor: Executor, clock: ManualClock) -> CommandHandler:
    """Return a deployer's handler of commands."""
    return CommandHandler(database, clock, {RollBackModel: executor, DeployModel: executor}, models=FOUR_MODELS)


def roll_back(**changes: object) -> RollBackModel:
    """Return a command that is valid for five minutes from noon."""
    fields: dict[str, Any] = {
        "event_id": uuid4(), "occurred_at": NOON, "issuer": "ann@desk", "expires_at": NOON + dt.timedelta(minutes=5), "model_type": "goal",
        **changes,
    }  # fmt: skip
    return RollBackModel(**fields)


def record_of(value: bytes | Command) -> Record:
    """Return bytes or a command as they come from the control topic."""
    raw = codec.encode(value) if isinstance(value, Command) else value
    return Record(topic=CONTROL.name, partition=0, offset=0, key=b"goal", value=raw, timestamp=NOON)


def document(**changes: object) -> bytes:
    """Return a command as somebody else's program might send it."""
    fields = {"type": "RollBackModel", "event_id": str(uuid4()), "occurred_at": NOON.isoformat(), "issuer": "bob", "model_type": "goal"}  # fmt: skip
    return msgspec.json.encode(fields | {"expires_at": (NOON + dt.timedelta(minutes=5)).isoformat()} | changes)


async def answers(database: Database) -> list[CommandResult]:
    """Return the answers that are in the outbox."""
    async with database.reading() as connection:
        rows = await connection.execute(
            sa.select(outbox.c.payload).where(outbox.c.topic == CONTROL_RESULTS.name).order_by(outbox.c.id)
        )
        return [codec.decode(CONTROL_RESULTS, row.payload) for row in rows]


async def effects(database: Database) -> list[str]:
    """Return the ids of the commands that took effect."""
    async with database.reading() as connection:
        rows = await connection.execute(sa.select(outbox.c.payload).where(outbox.c.topic == ALERTS.name))
        return [row.payload.decode() for row in rows]


async def written_down(database: Database) -> tuple[list[tuple[str, str]], list[tuple[str, str, str, str]]]:
    """Return (type, outcome) of each command in the inbox, and (actor, action, subject, outcome) of each audit row."""
    async with database.reading() as connection:
        inbox = await connection.execute(sa.select(command_inbox.c.command_type, command_inbox.c.outcome))
        a = audit_log.c
        audit = await connection.execute(sa.select(a.actor, a.action, a.subject, a.outcome).order_by(a.id))
        return [(row.command_type, row.outcome) for row in inbox], [
            (row.actor, row.action, row.subject, row.outcome) for row in audit
        ]


async def test_a_command_takes_effect_is_answered_and_written_down(database_url: str, clock: ManualClock) -> None:
    """A command takes effect, is answered and is audited."""
    executor, command = Executor(), roll_back()
    async with database_of(Service.DEPLOYER, database_url) as database:
        await handler(database, executor, clock).handle(record_of(command))
        [answer] = await answers(database)
        assert await effects(database) == [str(command.event_id)]
        assert await written_down(database) == (
            [("RollBackModel", "succeeded")],
            [("ann@desk", "RollBackModel", "goal", "succeeded")],
        )
    assert executor.acted == [(command.event_id, "goal")]
    assert isinstance(answer, CommandSucceeded)
    assert (answer.command_id, answer.causation_id) == (command.event_id, command.event_id)
    assert (answer.executor, answer.issuer, answer.command_type) == ("deployer", "ann@desk", "RollBackModel")
    assert (answer.detail, answer.result) == ("rolled back to 1.0.0", {"version": "1.0.0"})


async def test_a_command_that_comes_twice_acts_once(database_url: str, clock: ManualClock) -> None:
    """A command that is read twice takes effect once."""
    executor, command = Executor(), roll_back()
    async with database_of(Service.DEPLOYER, database_url) as database:
        for _ in range(3):
            await handler(database, executor, clock).handle(record_of(command))
        assert len(await answers(database)) == 1
        assert await effects(database) == [str(command.event_id)]
    assert len(executor.acted) == 1


async def test_of_two_instances_that_see_a_command_at_once_one_acts(database_url: str, clock: ManualClock) -> None:
    """Of two instances that read a command at once, one acts."""
    executor, command = Executor(), roll_back()
    executor.may_go_on.clear()
    async with (
        database_of(Service.DEPLOYER, database_url) as first,
        database_of(Service.DEPLOYER, database_url) as second,
        asyncio.timeout(20),
    ):
        both = [asyncio.create_task(handler(d, executor, clock).handle(record_of(command))) for d in (first, second)]
        await executor.entered.wait()
        assert not (await asyncio.wait(both, timeout=0.3))[0]  # the second one waits for the first
        executor.may_go_on.set()
        await asyncio.gather(*both)
        assert len(await answers(first)) == 1
        assert await effects(first) == [str(command.event_id)]
    assert len(executor.acted) == 1


async def test_where_the_first_instance_fails_the_second_one_acts(database_url: str, clock: ManualClock) -> None:
    """If the first instance fails, the second one acts."""
    broken, executor, command = Executor(), Executor(), roll_back()
    broken.may_go_on.clear()
    async with (
        database_of(Service.DEPLOYER, database_url) as first,
        database_of(Service.DEPLOYER, database_url) as second,
        asyncio.timeout(20),
    ):
        dying = asyncio.create_task(handler(first, broken, clock).handle(record_of(command)))
        await broken.entered.wait()
        waiting = asyncio.create_task(handler(second, executor, clock).handle(record_of(command)))
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        await waiting
        assert await effects(second) == [str(command.event_id)]
    assert len(executor.acted) == 1


async def test_the_same_id_of_another_issuer_is_another_command(database_url: str, clock: ManualClock) -> None:
    """The same id from another issuer is another command."""
    executor, command_id = Executor(), uuid4()
    async with database_of(Service.DEPLOYER, database_url) as database:
        for issuer in ("ann", "eve"):
            await handler(database, executor, clock).handle(record_of(roll_back(event_id=command_id, issuer=issuer)))
    assert len(executor.acted) == 2


async def test_a_command_that_comes_too_late_is_refused(database_url: str, clock: ManualClock) -> None:
    """An expired command is refused."""
    executor, command = Executor(), roll_back()
    clock.advance(5 * 60 + 1)
    async with database_of(Service.DEPLOYER, database_url) as database:
        await handler(database, executor, clock).handle(record_of(command))
        [answer] = await answers(database)
        assert await written_down(database) == (
            [("RollBackModel", "rejected")],
            [("ann@desk", "RollBackModel", "goal", "rejected")],
        )
    assert isinstance(answer, CommandRejected)
    assert "expired at 2026-03-04T12:05:00+00:00; send it again" in answer.detail
    assert executor.acted == []


async def test_a_refusal_takes_back_what_was_done_and_is_answered(database_url: str, clock: ManualClock) -> None:
    """A refusal rolls back what was done, and is answered."""
    executor = Executor(refusal="there is nothing before it; deploy a version first")
    async with database_of(Service.DEPLOYER, database_url) as database:
        await handler(database, executor, clock).handle(record_of(roll_back()))
        [answer] = await answers(database)
        assert await effects(database) == []
        assert (await written_down(database))[0] == [("RollBackModel", "rejected")]
    assert isinstance(answer, CommandRejected)
    assert answer.detail == "there is nothing before it; deploy a version first"


async def test_an_unknown_model_is_refused_with_the_known_ones(database_url: str, clock: ManualClock) -> None:
    """A command for an unknown model is refused with the known ones."""
    executor = Executor()
    async with database_of(Service.DEPLOYER, database_url) as database:
        await handler(database, executor, clock).handle(record_of(roll_back(model_type="weather")))
        [answer] = await answers(database)
    assert "no model 'weather'" in answer.detail
    assert all(model in answer.detail for model in FOUR_MODELS)
    assert executor.acted == []


@pytest.mark.parametrize(
    "raw",
    [document(type="BuyShares"), document(expires_at=None), document(reason=7)],
    ids=["unknown-type", "missing-field", "wrong-type"],
)
async def test_what_nobody_understands_is_refused_with_what_is_known(
    database_url: str, clock: ManualClock, raw: bytes
) -> None:
    """An unknown command is refused with the known ones."""
    async with database_of(Service.DEPLOYER, database_url) as database:
        await handler(database, Executor(), clock).handle(record_of(raw))
        [answer] = await answers(database)
        inbox, [audit] = await written_down(database)
    assert isinstance(answer, CommandRejected)
    assert "known commands: " in answer.detail
    assert "RollBackModel" in answer.detail
    assert inbox[0][1] == "rejected"
    assert audit[0] == "bob"


async def test_what_nobody_understands_is_answered_once(database_url: str, clock: ManualClock) -> None:
    """An unknown command is answered once, whatever restarts and however many services read it."""
    raw = document(type="BuyShares")
    async with (
        database_of(Service.DEPLOYER, database_url) as deployer,
        database_of(Service.TRAINERS, database_url) as trainers,
    ):
        for database in (trainers, deployer, deployer):
            await handler(database, Executor(), clock).handle(record_of(raw))
        assert len(await answers(deployer)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"no JSON",
        b"\xff\xfe",
        b"[]",
        b"{}",
        document(event_id="7"),
        document(model_type=7),
        document(type="x" * 51),
        document(type="BuyShares", issuer="x" * 201),
        document(type="BuyShares", issuer="a\0b"),
        document(issuer="x" * 201),
        document(model_type="x" * 201),
    ],
)
async def test_what_cannot_even_be_answered_is_put_aside(database_url: str, clock: ManualClock, raw: bytes) -> None:
    """A command that cannot even be answered becomes a dead letter."""
    async with database_of(Service.DEPLOYER, database_url) as database:
        with pytest.raises(InvalidMessageError):
            await handler(database, Executor(), clock).handle(record_of(raw))
        assert await written_down(database) == ([], [])


async def test_other_services_leave_a_broken_record_to_the_one_that_answers(
    database_url: str, clock: ManualClock
) -> None:
    """A broken record is dead-lettered by one service only."""
    async with database_of(Service.TRAINERS, database_url) as database:
        for raw in (b"no JSON", document(type="BuyShares"), document(type="x" * 51)):
            await handler(database, Executor(), clock).handle(record_of(raw))
        assert await written_down(database) == ([], [])


async def test_a_command_of_another_service_is_left_alone(database_url: str, clock: ManualClock) -> None:
    """A service leaves the commands of other services alone."""
    command = TriggerTraining(
        event_id=uuid4(), occurred_at=NOON, issuer="ann", expires_at=NOON + dt.timedelta(minutes=5), model_type="goal"
    )
    async with database_of(Service.DEPLOYER, database_url) as database:
        await handler(database, Executor(), clock).handle(record_of(command))
        assert await written_down(database) == ([], [])


@pytest.mark.parametrize("raw", [record_of(roll_back()).value, document(type="BuyShares")], ids=["known", "unknown"])
async def test_while_the_database_is_away_a_command_waits(clock: ManualClock, raw: bytes) -> None:
    """A command waits while the database is away."""
    url = f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none"
    async with database_of(Service.DEPLOYER, url) as database:
        with pytest.raises(RetryLaterError):
            await handler(database, Executor(), clock).handle(record_of(raw))


async def test_a_bug_of_an_executor_is_not_taken_for_a_refusal(database_url: str, clock: ManualClock) -> None:
    """A bug in an executor is raised, not answered as a refusal."""

    async def buggy(*_: object) -> CommandOutcome:
        message = "a bug"
        raise ZeroDivisionError(message)

    async with database_of(Service.DEPLOYER, database_url) as database:
        with pytest.raises(ZeroDivisionError):
            await CommandHandler(database, clock, {RollBackModel: buggy}, models=FOUR_MODELS).handle(
                record_of(roll_back())
            )
        assert await written_down(database) == ([], [])


async def test_a_command_that_the_database_refuses_is_refused(database_url: str, clock: ManualClock) -> None:
    """A value beyond its column or against a rule is answered with the database's own words: it stops no process."""
    broken = outbox.insert().values(service="kitchen", topic="t", payload=b"")

    async def writes_it(work: UnitOfWork, *_: object) -> CommandOutcome:
        await work.connection.execute(broken)
        return CommandOutcome(detail="done")

    async with database_of(Service.DEPLOYER, database_url) as database:
        await CommandHandler(database, clock, {RollBackModel: writes_it}, models=FOUR_MODELS).handle(
            record_of(roll_back())
        )
        [answer] = await answers(database)
        assert (await written_down(database))[0] == [("RollBackModel", "rejected")]
    assert isinstance(answer, CommandRejected)
    assert answer.detail.startswith("the database cannot hold it: ")


async def test_a_command_whose_refusal_cannot_be_written_down_is_put_aside(
    database_url: str, clock: ManualClock
) -> None:
    """A refusal that quotes what no column holds ends as a dead letter: it holds up no command behind it."""
    executor = Executor(refusal="there is no version a\0b")
    async with database_of(Service.DEPLOYER, database_url) as database:
        with pytest.raises(InvalidMessageError, match="the database cannot hold it"):
            await handler(database, executor, clock).handle(record_of(roll_back()))
        assert await written_down(database) == ([], [])
