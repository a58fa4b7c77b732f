"""Commands through a real broker to an executor, and what comes back to whoever gave them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest

from admin.gateway import COMMAND_LIFE, CommandGateway, NoAnswerError
from backends.broker.interface import Record
from backends.broker.kafka import BrokerProducer, create_topics
from backends.clock import ManualClock, SystemClock
from schemas import codec
from schemas.errors import CommandRejectedError, FinCoachError
from schemas.messages.control import (
    Command,
    CommandFailed,
    CommandRejected,
    CommandResult,
    CommandSucceeded,
    DeployModel,
    RollBackModel,
)
from schemas.topics import CONTROL, CONTROL_RESULTS
from stack.ports import free_port
from tests.integration.backends_topics import consuming, producing, records_on
from tests.services import unique

Answer = Callable[[Command], list[CommandResult | bytes]]


def result_of(kind: type[CommandResult], command: Command, detail: str, **changes: object) -> CommandResult:
    """Return an answer to ``command``."""
    fields: dict[str, object] = {
        "event_id": uuid4(), "occurred_at": command.occurred_at, "command_id": command.event_id, "command_type": type(command).__name__,
        "issuer": command.issuer, "executor": "deployer", "detail": detail, **changes,
    }  # fmt: skip
    return kind(**fields)  # type: ignore[arg-type]


@pytest.fixture
async def brokers(broker_address: str) -> str:
    """Return the broker, with the two topics of commands on it."""
    await create_topics(broker_address, wide_partitions=1, topics=[CONTROL, CONTROL_RESULTS])
    return broker_address


@contextlib.asynccontextmanager
async def executing(brokers: str, answer: Answer) -> AsyncIterator[None]:
    """Answer this test's commands while the block runs, as an executor of another process would."""
    async with consuming(brokers, [CONTROL]) as consumer, producing(brokers) as producer:

        async def run() -> None:
            while True:
                for record in await consumer.fetch(timeout_seconds=0.1):
                    await _respond(record, answer, producer)

        life = asyncio.create_task(run())
        try:
            yield
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)


async def _respond(record: Record, answer: Answer, producer: BrokerProducer) -> None:
    with contextlib.suppress(FinCoachError):  # other tests put anything on the topic
        command: Command = codec.decode(CONTROL, record.value)
        for result in answer(command):
            value = result if isinstance(result, bytes) else codec.encode(result)
            await producer.publish(CONTROL_RESULTS.name, str(command.event_id).encode(), value)


@contextlib.asynccontextmanager
async def gateway_to(brokers: str, *, issuer: str | None = None) -> AsyncIterator[CommandGateway]:
    """Give a started gateway."""
    gateway = CommandGateway(brokers, issuer=issuer or unique("issuer"), clock=SystemClock())
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def test_a_command_says_who_gave_it_and_how_long_it_holds() -> None:
    """A command says who gave it and when it expires."""
    noon = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
    gateway = CommandGateway("nowhere:1", issuer="ann@desk", clock=ManualClock(noon))
    command, other = (gateway.command(DeployModel, "goal", version="1.2.0") for _ in range(2))
    assert isinstance(command, DeployModel)
    assert (command.issuer, command.occurred_at, command.expires_at) == ("ann@desk", noon, noon + COMMAND_LIFE)
    assert (command.model_type, command.version) == ("goal", "1.2.0")
    assert command.event_id != other.event_id


async def test_a_command_comes_back_with_its_own_answer(brokers: str) -> None:
    """A caller gets the answer to its own command; other and broken answers are ignored."""

    def answer(command: Command) -> list[CommandResult | bytes]:
        return [
            b"no JSON",
            result_of(CommandSucceeded, command, "another one", command_id=uuid4()),
            result_of(CommandSucceeded, command, "rolled back to 1.0.0", result={"version": "1.0.0"}),
        ]

    async with executing(brokers, answer), gateway_to(brokers) as gateway:
        command = gateway.command(RollBackModel, "goal")
        result = await gateway.execute(command, timeout_seconds=20)
    assert (result.command_id, result.detail, result.result) == (
        command.event_id,
        "rolled back to 1.0.0",
        {"version": "1.0.0"},
    )
    [sent] = [record for record in await records_on(brokers, CONTROL) if str(command.event_id).encode() in record.value]
    assert sent.key == b"goal"
    assert codec.decode(CONTROL, sent.value) == command


@pytest.mark.parametrize(("kind", "error"), [(CommandRejected, CommandRejectedError), (CommandFailed, FinCoachError)])
async def test_a_refusal_and_a_failure_are_told_apart(
    brokers: str, kind: type[CommandResult], error: type[FinCoachError]
) -> None:
    """A refused command and a failed one raise different errors."""

    def answer(command: Command) -> list[CommandResult | bytes]:
        return [result_of(kind, command, "there is nothing before it")]

    async with executing(brokers, answer), gateway_to(brokers) as gateway:
        with pytest.raises(FinCoachError, match="there is nothing before it") as caught:
            await gateway.execute(gateway.command(RollBackModel, "goal"), timeout_seconds=20)
    assert type(caught.value) is error


async def test_where_nobody_acts_the_caller_is_told_what_happens_next(brokers: str) -> None:
    """Without an executor, the caller learns after a time limit that the command still counts."""
    async with gateway_to(brokers) as gateway:
        with pytest.raises(NoAnswerError, match=r"no process answered within 0.3 s.* within 5 minutes.*status"):
            await gateway.execute(gateway.command(RollBackModel, "goal"), timeout_seconds=0.3)


async def test_an_answer_that_came_before_the_question_was_over_is_found(brokers: str) -> None:
    """An answer that came after the time limit is found by asking again."""
    async with gateway_to(brokers) as gateway, producing(brokers) as producer:
        command = gateway.command(RollBackModel, "goal")
        result = result_of(CommandSucceeded, command, "done")
        await producer.publish(CONTROL_RESULTS.name, None, codec.encode(result))
        assert await gateway.answer_to(command.event_id, timeout_seconds=20) == result


async def test_anything_can_be_put_on_the_control_topic_to_try_its_refusal(brokers: str) -> None:
    """Any bytes can be sent to the control topic, to show how they are refused."""
    raw = unique("no command").encode()
    async with gateway_to(brokers) as gateway:
        await gateway.send_raw("goal", raw)
    assert raw in [record.value for record in await records_on(brokers, CONTROL)]


async def test_a_broker_that_is_away_is_said_and_not_waited_for() -> None:
    """A broker that is away is reported after a limited time."""
    address = f"127.0.0.1:{free_port()}"
    gateway = CommandGateway(address, issuer="ann", clock=SystemClock())
    with pytest.raises(NoAnswerError, match=f"{address} does not answer, nothing was sent"):
        await gateway.start(timeout_seconds=0.3)
    with pytest.raises(NoAnswerError, match="not started"):
        await gateway.answer_to(uuid4(), timeout_seconds=1)
    await gateway.stop()
