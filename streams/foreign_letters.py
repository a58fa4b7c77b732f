"""Dead letters of the other rooms, from their topic into the table, so that all are listed and retried in one place.

The rooms themselves write to the topic alone: the table has one writer. Letters of ledger topics are in the table before
they are on the topic, and are passed over here.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from backends.broker.connecting import connected
from backends.database.engine import DATABASE_AWAY_ERRORS, STATEMENT_ERRORS
from backends.database.repositories.dead_letters import DeadLetterRepository, DeadLetterRow
from backends.dead_letters import LONGEST_PRODUCER_CHARACTERS, key_of, retry_of, storable
from backends.telemetry.logs import get_logger
from schemas.dead_letters import UNKNOWN_PRODUCER
from schemas.errors import RetryLaterError
from schemas.topics import BEHAVIORAL_EVENTS, PREDICTIONS, TOPICS
from schemas.vocabulary import DeadLetterReason

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.broker.kafka import BrokerConsumer
    from backends.database.unit_of_work import Database

log = get_logger("streams.foreign_letters")
GROUP = "fincoach-streams-dead-letters"
FETCH_SECONDS = 1.0
RETRY_SECONDS = 2.0
AWAY_ERRORS: tuple[type[Exception], ...] = (RetryLaterError, *DATABASE_AWAY_ERRORS)
LEDGER_TOPICS = {BEHAVIORAL_EVENTS.name, PREDICTIONS.name}
LARGEST_PARTITION, LARGEST_OFFSET = 2**31 - 1, 2**63 - 1


class ForeignLetters:
    """Reads the dead-letter topic for as long as it runs; the workers share the work as one group."""

    def __init__(self, database: Database, new_consumer: Callable[[], BrokerConsumer]) -> None:
        self._database = database
        self._new_consumer = new_consumer

    async def run(self) -> None:
        """Keep letters until cancelled; wait while broker or database are away."""
        consumer = await connected(self._new_consumer)
        try:
            while True:
                await self._take(consumer)
        finally:
            await consumer.stop()

    async def _take(self, consumer: BrokerConsumer) -> None:
        records: list[Record] = []
        try:
            records = await consumer.fetch(timeout_seconds=FETCH_SECONDS)
            await self._save([row for record in records if (row := row_of(record)) is not None])
            if records:
                await consumer.commit(records[-1])
        except STATEMENT_ERRORS:  # tried again it would fail again: a bug, which stops the process
            raise
        except AWAY_ERRORS as error:
            log.warning("foreign_letters_delayed", error=repr(error))
            if records:
                consumer.rewind(records[0])
            await asyncio.sleep(RETRY_SECONDS)

    async def _save(self, rows: list[DeadLetterRow]) -> None:
        if not rows:
            return
        async with self._database.transaction() as work:
            repository = DeadLetterRepository(work)
            new = [row for row in rows if await repository.save_unknown(row)]
        log.info("foreign_letters_kept", letters=len(new), topics=sorted({row.topic for row in new}))


def row_of(record: Record) -> DeadLetterRow | None:
    """Return the row of another room's letter; None for one of ours, and for a record that is no dead letter. Pure."""
    said = record.headers
    topic = TOPICS.get(said.get("source_topic", ""))
    if topic is None or topic.name in LEDGER_TOPICS or said.get("reason") not in set(DeadLetterReason):
        return None
    try:
        partition, offset = int(said["source_partition"]), int(said["source_offset"])
        moment, key = dt.datetime.fromisoformat(said["source_timestamp"]).astimezone(dt.UTC), key_of(said)
    except (LookupError, ValueError, OverflowError):
        return None
    if not (0 <= partition <= LARGEST_PARTITION and 0 <= offset <= LARGEST_OFFSET):
        return None
    first, attempts = retry_of(said)
    return DeadLetterRow(
        topic=topic.name, generation=topic.generation, partition=partition, offset=offset, key=key, reason=said["reason"],
        detail=storable(said.get("detail", "")), raw=record.value, record_at=moment, producer=_producer(said),
        attempts=attempts, retry_of=first,
    )  # fmt: skip


def _producer(said: Mapping[str, str]) -> str:
    return storable(said.get("producer", ""))[:LONGEST_PRODUCER_CHARACTERS] or UNKNOWN_PRODUCER
