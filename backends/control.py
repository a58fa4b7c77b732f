"""How a service reads the control topic: every instance sees every command, the inbox decides who acts.

There is no group and no committed offset. A process starts reading at the oldest command that can still be valid, so it
carries out commands given while it was down. The inbox makes reading a command twice harmless.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec

from backends.database.commands import answer, claim, command_name
from backends.telemetry.logs import get_logger
from schemas import codec
from schemas.errors import CommandRejectedError, InvalidMessageError
from schemas.messages.control import Command, CommandOutcome, UnreadableCommand
from schemas.messages.envelope import AwareDatetime
from schemas.topics import COMMAND_EXECUTORS, CONTROL, UNKNOWN_COMMAND_EXECUTOR
from schemas.vocabulary import CommandStatus, DeadLetterReason, ModelType

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork

log = get_logger("control")
LONGEST_COMMAND_LIFE = dt.timedelta(minutes=30)

_KNOWN = ", ".join(kind.__name__ for kind in COMMAND_EXECUTORS)


# As long as the columns of inbox and audit log: a longer text can be neither answered nor refused.
_NO_NUL = "^[^\\x00]*$"
_Name = Annotated[str, msgspec.Meta(max_length=200, pattern=_NO_NUL)]


class _Head(msgspec.Struct):
    event_id: UUID
    occurred_at: AwareDatetime
    issuer: _Name
    type: Annotated[str, msgspec.Meta(max_length=50, pattern=_NO_NUL)]
    model_type: _Name = ""


_head = msgspec.json.Decoder(_Head)

# Carries out a command inside the given transaction. Raise CommandRejectedError to refuse.
# The third argument is the model; None for commands without one.
Execution = Callable[["UnitOfWork", Any, Any], Awaitable[CommandOutcome]]


class CommandHandler:
    """Handles control records for one service: decode, expire, claim, execute, answer: all in one transaction."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        executions: dict[type[Command], Execution],
        *,
        models: Collection[ModelType],
    ) -> None:
        self._models = models
        self._database = database
        self._clock = clock
        self._executions = executions

    async def handle(self, record: Record) -> None:
        """Act on one record of the control topic if it is this service's.

        Raises:
            InvalidMessageError: the record is no command, or neither it nor its refusal can be stored,
                and this service is the one that reports it.
            RetryLaterError: the database is away.
        """
        try:
            command = codec.decode(CONTROL, record.value)
        except InvalidMessageError as error:
            if self._database.service == UNKNOWN_COMMAND_EXECUTOR:
                await self._reject(_unreadable(record.value, error), f"{error.detail}; known commands: {_KNOWN}")
            return
        if COMMAND_EXECUTORS[type(command)] == self._database.service:
            _check_names(record.value)
            await self._decide(command)

    async def _decide(self, command: Command) -> None:
        try:
            async with self._database.transaction() as work:
                if await claim(work, command):
                    await self._execute(work, command)
        except CommandRejectedError as error:
            await self._reject(command, str(error))
        except InvalidMessageError as error:  # the database refuses what is in it
            await self._reject(command, error.detail)

    async def _execute(self, work: UnitOfWork, command: Command) -> None:
        if command.expires_at < self._clock.now():
            message = f"the command expired at {command.expires_at.isoformat()}; send it again"
            raise CommandRejectedError(message)
        model_type = self._known(command.model_type) if command.about_a_model else None
        outcome = await self._executions[type(command)](work, command, model_type)
        await answer(work, command, outcome, now=self._clock.now())
        log.info(
            "command_succeeded", command=command_name(command), model_type=command.model_type, issuer=command.issuer
        )

    def _known(self, model_type: str) -> ModelType:
        if model_type not in self._models:
            message = f"there is no model {model_type!r}; choose one of {', '.join(self._models)}"
            raise CommandRejectedError(message)
        return model_type

    async def _reject(self, command: Command, detail: str) -> None:
        async with self._database.transaction() as work:
            if await claim(work, command):
                rejected = CommandOutcome(detail=detail, status=CommandStatus.REJECTED)
                await answer(work, command, rejected, now=self._clock.now())
        log.warning("command_rejected", command=command_name(command), model_type=command.model_type, detail=detail)


def _check_names(raw: bytes) -> None:
    try:
        _head.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, str(error)) from error


def _unreadable(raw: bytes, error: InvalidMessageError) -> UnreadableCommand:
    """Return what is needed to answer a command that cannot be read.

    Raises:
        InvalidMessageError: when issuer or identity cannot be read; the record then becomes a dead letter.
    """
    try:
        head = _head.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise error from None
    return UnreadableCommand(
        event_id=head.event_id,
        occurred_at=head.occurred_at,
        issuer=head.issuer,
        expires_at=head.occurred_at,
        model_type=head.model_type,
        command_name=head.type,
    )
