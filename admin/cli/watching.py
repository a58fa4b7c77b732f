"""Reads the topics for people: alerts and the progress of trainings."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from backends.broker.connecting import connected
from backends.broker.kafka import BrokerConsumer
from backends.telemetry.logs import get_logger
from schemas import codec
from schemas.errors import InvalidMessageError, RetryLaterError

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from schemas.topics import Topic

log = get_logger("watching")
FETCH_SECONDS = 0.5
CONNECT_SECONDS = 15.0


async def since(brokers: str, topic: Topic, moment: dt.datetime) -> list[Any]:
    """Return the messages that were appended to ``topic`` from ``moment`` to now, oldest first.

    Raises:
        RetryLaterError: the broker does not answer.
    """
    async with _reader(brokers, topic, moment) as consumer:
        messages: list[Any] = []
        while any(lag.records for lag in await consumer.lags()):
            records = await consumer.fetch(timeout_seconds=FETCH_SECONDS)
            messages += [message for record in records if (message := _decoded(topic, record)) is not None]
        return messages


async def follow(brokers: str, topic: Topic, moment: dt.datetime) -> AsyncIterator[Any]:
    """Yield the messages on ``topic`` from ``moment`` on, without end.

    Raises:
        RetryLaterError: the broker does not answer.
    """
    async with _reader(brokers, topic, moment) as consumer:
        while True:
            for record in await consumer.fetch(timeout_seconds=FETCH_SECONDS):
                message = _decoded(topic, record)
                if message is not None:
                    yield message


@asynccontextmanager
async def _reader(brokers: str, topic: Topic, moment: dt.datetime) -> AsyncIterator[BrokerConsumer]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            consumer = await connected(
                lambda: BrokerConsumer(brokers, [topic], client_id="fincoach-learning"), since=lambda: moment
            )
    except TimeoutError as error:
        message = f"the broker at {brokers} does not answer; run `fincoach-learning status`"
        raise RetryLaterError(message) from error
    try:
        yield consumer
    finally:
        await consumer.stop()


def _decoded(topic: Topic, record: Record) -> Any:  # noqa: ANN401 - the topic's own union
    try:
        return codec.decode(topic, record.value)
    except InvalidMessageError as error:
        log.warning("unreadable_message_skipped", topic=topic.name, offset=record.offset, reason=error.reason)
        return None
