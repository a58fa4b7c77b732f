"""Dead letters of other services: from their topic into the table, once, and back to where they came from."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from backends.broker.interface import Record
from backends.broker.kafka import BrokerConsumer, BrokerProducer, create_topics
from backends.broker.processor import Processor
from backends.clock import SystemClock
from backends.database.repositories.dead_letters import DeadLetterRepository, LetterFilter, RetryRule
from backends.dead_letters import DeadLetterTopic, dead_letter_headers
from schemas.errors import InvalidMessageError
from schemas.topics import BEHAVIORAL_EVENTS, CONTROL, DEAD_LETTERS
from streams.batches.foreign_dead_letters import ForeignDeadLetters, row_of
from tests.integration.streams_workers import database_of, producing, until
from tests.services import WIDE_PARTITIONS, connect, unique


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection to ask with."""
    connection = await connect(database_url)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def keeping(brokers: str, database_url: str, group: str) -> AsyncIterator[None]:
    """Let a worker keep the letters of others meanwhile."""
    consumer = BrokerConsumer(brokers, [DEAD_LETTERS], client_id="test", group=group)
    await consumer.start()
    try:
        async with database_of(database_url) as database, producing(brokers) as producer:
            handle = ForeignDeadLetters(database).handle
            task = asyncio.ensure_future(Processor(consumer, handle, DeadLetterTopic(producer), name=group).run())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    finally:
        await consumer.stop()


def refused(topic: str, value: bytes) -> Record:
    """Return a record that another service cannot handle."""
    offset = uuid.uuid4().int >> 70
    return Record(topic=topic, partition=0, offset=offset, key=b"goal", value=value, timestamp=SystemClock().now())


async def put_aside(producer: BrokerProducer, record: Record) -> None:
    """Put ``record`` aside as the processor of another service does."""
    await DeadLetterTopic(producer)(record, "missing_field", "planted")


async def rows_of(connection: asyncpg.Connection, value: bytes) -> list[asyncpg.Record]:
    """Return the letters with these bytes."""
    return list(await connection.fetch("SELECT * FROM dead_letters WHERE raw = $1", value))


async def test_a_letter_of_another_service_is_kept_once_and_can_be_retried(
    broker_address: str, database_url: str, connection: asyncpg.Connection
) -> None:
    """A dead letter of another service is kept once and can be retried."""
    await create_topics(broker_address, wide_partitions=WIDE_PARTITIONS)
    command, event, last = (f'{{"issuer":"ann","x":"{uuid.uuid4()}"}}'.encode() for _ in range(3))
    record, group = refused(CONTROL.name, command), unique("letters")

    async def kept(value: bytes) -> bool:
        return bool(await rows_of(connection, value))

    async with producing(broker_address) as producer:
        await put_aside(producer, record)
        await put_aside(producer, record)
        await put_aside(producer, refused(BEHAVIORAL_EVENTS.name, event))
        await producer.publish(
            DEAD_LETTERS.name, b"x", command, headers={"source_topic": CONTROL.name, "reason": "none"}
        )
        async with keeping(broker_address, database_url, group):
            await until(lambda: kept(command), what="the letter in the table")
        await put_aside(producer, record)
        await put_aside(producer, refused(CONTROL.name, last))
        async with keeping(broker_address, database_url, group):
            await until(lambda: kept(last), what="the letter behind it")
    (row,) = await rows_of(connection, command)
    assert (row["topic"], row["offset"], row["key"], row["producer"]) == (CONTROL.name, record.offset, b"goal", "ann")
    assert (row["reason"], row["detail"], row["record_at"]) == ("missing_field", "planted", record.timestamp)
    assert await rows_of(connection, event) == []
    async with database_of(database_url) as database, database.transaction() as work:
        await work.connection.exec_driver_sql("SELECT 1")
        chosen = LetterFilter(ids=(row["id"],))
        assert await DeadLetterRepository(work).send_again(chosen, RetryRule(most_attempts=5)) == 1
    sent = await connection.fetchrow("SELECT topic, key, payload FROM outbox")
    assert tuple(sent) == (CONTROL.name, b"goal", command)


SAID = {
    "reason": "not_json", "detail": "why", "source_topic": CONTROL.name, "source_partition": "0", "source_offset": "7",
    "source_timestamp": "2026-03-04T12:00:00+00:00", "producer": "ann",
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"source_topic": "somebody.elses"},
        {"source_topic": BEHAVIORAL_EVENTS.name},
        {"reason": "because"},
        {"source_partition": "x"},
        {"source_partition": "-1"},
        {"source_offset": str(2**63)},
        {"source_timestamp": "noon"},
        {"source_timestamp": "0001-01-01T00:00:00+14:00"},
        {"source_key_base64": "%"},
    ],
)
def test_what_is_no_letter_of_another_service_is_passed_over(changed: dict[str, str]) -> None:
    """A record on the topic that is no dead letter of another service is ignored."""
    record = Record(topic="t", partition=0, offset=1, key=None, value=b"", timestamp=SystemClock().now(), headers=SAID)
    assert row_of(record) is not None
    assert row_of(dataclasses.replace(record, headers=SAID | changed)) is None


async def test_a_letter_that_the_table_cannot_hold_stops_nobody(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What slips past the checks of a letter's headers is put aside: no worker stops at it, and none tries it for ever."""
    monkeypatch.setattr("streams.batches.foreign_dead_letters.LARGEST_OFFSET", 2**64)
    record = dataclasses.replace(refused(CONTROL.name, b"{}"), offset=2**63)
    letter = dataclasses.replace(record, headers=dead_letter_headers(record, "missing_field", "planted"))
    async with database_of(database_url) as database:
        with pytest.raises(InvalidMessageError, match="the database cannot hold it"):
            await ForeignDeadLetters(database).handle(letter)
