"""Dead letters of the other services, from their topic into the table, so that all are listed and retried in one place.

The services themselves write to the topic alone: the table has one writer. Letters of ledger topics are in the table before
they are on the topic, and are passed over here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.database.repositories.dead_letters import DeadLetterRepository, DeadLetterRow
from backends.dead_letters import LONGEST_PRODUCER_CHARACTERS, key_of, retry_of, storable
from backends.telemetry.logs import get_logger
from schemas.dead_letters import UNKNOWN_PRODUCER
from schemas.topics import BEHAVIORAL_EVENTS, PREDICTIONS, TOPICS
from schemas.vocabulary import DeadLetterReason

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.database.unit_of_work import Database

log = get_logger("streams.batches.foreign_dead_letters")
GROUP = "fincoach-streams-dead-letters"
LEDGER_TOPICS = {BEHAVIORAL_EVENTS.name, PREDICTIONS.name}
LARGEST_PARTITION, LARGEST_OFFSET = 2**31 - 1, 2**63 - 1


class ForeignLetters:
    """Handles the dead-letter topic; the workers share the work as one group."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def handle(self, record: Record) -> None:
        """Keep the letter in ``record`` if it is another service's; one that is known changes nothing.

        Raises:
            InvalidMessageError: the table cannot hold it.
            RetryLaterError: the database is away.
        """
        row = row_of(record)
        if row is None:
            return
        async with self._database.transaction() as work:
            is_new = await DeadLetterRepository(work).save_unknown(row)
        if is_new:
            log.info("foreign_letter_kept", topic=row.topic, reason=row.reason)


def row_of(record: Record) -> DeadLetterRow | None:
    """Return the row of another service's letter; None for one of ours, and for a record that is no dead letter. Pure."""
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
