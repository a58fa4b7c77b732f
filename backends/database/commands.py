"""The command inbox: one instance acts on a command, once, with its audit row and answer in the same transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy.dialects.postgresql import insert

from backends.telemetry.metrics import METRICS
from schemas.messages.control import (
    Command,
    CommandFailed,
    CommandOutcome,
    CommandRejected,
    CommandResult,
    CommandSucceeded,
    UnreadableCommand,
)
from schemas.tables import command_inbox
from schemas.topics import CONTROL_RESULTS
from schemas.vocabulary import CommandStatus

if TYPE_CHECKING:
    import datetime as dt

    from backends.database.unit_of_work import UnitOfWork

ANSWERS: dict[CommandStatus, type[CommandResult]] = {
    CommandStatus.SUCCEEDED: CommandSucceeded,
    CommandStatus.REJECTED: CommandRejected,
    CommandStatus.FAILED: CommandFailed,
}


def command_name(command: Command) -> str:
    """Return the name under which a command was sent."""
    return command.command_name if isinstance(command, UnreadableCommand) else type(command).__name__


async def claim(work: UnitOfWork, command: Command) -> bool:
    """Return whether this transaction acts on ``command``; False if another one already has.

    A concurrent instance waits here until the first one commits or rolls back.
    """
    row = {
        "issuer": command.issuer,
        "command_id": command.event_id,
        "command_type": command_name(command),
        "executor": work.service,
    }
    inserted = await work.connection.execute(
        insert(command_inbox)
        .values(**row, outcome="claimed", detail="")
        .on_conflict_do_nothing()
        .returning(command_inbox.c.command_id)
    )
    return inserted.first() is not None


async def answer(work: UnitOfWork, command: Command, outcome: CommandOutcome, *, now: dt.datetime) -> None:
    """Record ``outcome`` in inbox and audit log, and publish the answer on control-results. Call it last."""
    name = command_name(command)
    await work.connection.execute(
        command_inbox.update()
        .where(command_inbox.c.issuer == command.issuer, command_inbox.c.command_id == command.event_id)
        .values(outcome=outcome.status, detail=outcome.detail)
    )
    message = ANSWERS[outcome.status](
        event_id=uuid4(), occurred_at=now, correlation_id=command.correlation_id or command.event_id, causation_id=command.event_id,
        command_id=command.event_id, command_type=name, issuer=command.issuer, executor=work.service, detail=outcome.detail,
        result=outcome.result,
    )  # fmt: skip
    await work.publish(CONTROL_RESULTS, str(command.event_id), message)
    await work.audit(
        actor=command.issuer,
        action=name,
        subject=command.subject,
        outcome=outcome.status,
        details={"command_id": str(command.event_id), "detail": outcome.detail},
    )
    METRICS.commands_answered.labels(command=name, outcome=outcome.status).inc()
