"""Commands to the control topic, and their answers from control-results."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from backends.broker.connecting import connected
from backends.broker.kafka import BrokerConsumer, BrokerProducer
from schemas import codec
from schemas.errors import CommandRejectedError, FinCoachError, InvalidMessageError, RetryLaterError
from schemas.messages.control import Command, CommandResult, CommandSucceeded
from schemas.topics import CONTROL, CONTROL_RESULTS

if TYPE_CHECKING:
    from backends.clock import Clock

CONNECT_SECONDS = 15.0
COMMAND_LIFE = dt.timedelta(minutes=5)


class NoAnswerError(FinCoachError):
    """No answer to the command came in time; it stays on the topic until it expires."""


class CommandGateway:
    """Sends commands as one issuer and waits for the executors' answers."""

    def __init__(self, brokers: str, *, issuer: str, clock: Clock) -> None:
        self._brokers = brokers
        self._issuer = issuer
        self._clock = clock
        self._producer = BrokerProducer(brokers, client_id=f"gateway-{issuer}", linger_ms=0)
        self._results: BrokerConsumer | None = None

    async def start(self, *, timeout_seconds: float | None = None) -> None:
        """Connect; answers are read from now on.

        Raises:
            NoAnswerError: the broker does not answer in time.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS if timeout_seconds is None else timeout_seconds):
                await self._producer.start()
                self._results = await connected(
                    self._consumer, since=lambda: self._clock.now() - dt.timedelta(seconds=5)
                )
        except TimeoutError as error:
            await self.stop()
            message = f"the broker at {self._brokers} does not answer, nothing was sent; run `fincoach-learning status`"
            raise NoAnswerError(message) from error

    async def stop(self) -> None:
        """Disconnect."""
        if self._results is not None:
            await self._results.stop()
        await self._producer.stop()

    def command(self, kind: type[Command], model_type: str, **fields: Any) -> Command:  # noqa: ANN401 - the command's own fields
        """Return a command of this issuer, valid for five minutes from now."""
        now = self._clock.now()
        return kind(
            event_id=uuid4(),
            occurred_at=now,
            issuer=self._issuer,
            expires_at=now + COMMAND_LIFE,
            model_type=model_type,
            **fields,
        )

    async def execute(self, command: Command, *, timeout_seconds: float) -> CommandResult:
        """Send ``command`` and return the answer.

        Raises:
            CommandRejectedError: it was refused; the message says what to do instead.
            NoAnswerError: no executor answered in time.
            FinCoachError: it was accepted but failed.
        """
        await self.send_raw(command.model_type, codec.encode(command))
        result = await self.answer_to(command.event_id, timeout_seconds=timeout_seconds)
        if isinstance(result, CommandSucceeded):
            return result
        kind = type(result).__name__
        raise (CommandRejectedError if kind == "CommandRejected" else FinCoachError)(result.detail)

    async def send_raw(self, key: str, value: bytes) -> None:
        """Publish bytes unchanged on the control topic."""
        await self._producer.publish(CONTROL.name, key.encode(), value)

    async def answer_to(self, command_id: UUID, *, timeout_seconds: float) -> CommandResult:
        """Return the answer to a command.

        Raises:
            NoAnswerError: there was none in time.
        """
        deadline = self._clock.monotonic() + timeout_seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            for result in await self._next_results(min(left, 0.5)):
                if result.command_id == command_id:
                    return result
        message = (
            f"no process answered within {timeout_seconds:g} s; the command is carried out when its executor is back, if that is within "
            f"{COMMAND_LIFE.seconds // 60} minutes. `fincoach-learning status` shows which process is away"
        )
        raise NoAnswerError(message)

    def _consumer(self) -> BrokerConsumer:
        return BrokerConsumer(self._brokers, [CONTROL_RESULTS], client_id=f"gateway-{self._issuer}")

    async def _next_results(self, timeout_seconds: float) -> list[CommandResult]:
        if self._results is None:
            raise NoAnswerError("the gateway is not started")
        try:
            records = await self._results.fetch(timeout_seconds=timeout_seconds)
        except RetryLaterError:
            return []
        return [result for record in records if (result := _decoded(record.value)) is not None]


def _decoded(raw: bytes) -> CommandResult | None:
    try:
        result: CommandResult = codec.decode(CONTROL_RESULTS, raw)
    except InvalidMessageError:
        return None
    return result
