"""Copies dead letters of other services from their topic into the table, so that one place lists and retries them all.

Other services write only to the topic, because the table has one writer. Dead letters of ledger topics are already in the
table when they appear on the topic, and are skipped here.
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


class ForeignDeadLetters:
    """Handles the dead-letter topic. The workers share the work as one consumer group."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def handle(self, record: Record) -> None:
        """Save the dead letter in ``record`` if another service wrote it. Saving it again changes nothing.

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
            log.info("foreign_dead_letter_kept", topic=row.topic, reason=row.reason)


def row_of(record: Record) -> DeadLetterRow | None:
    """Return the row of another service's dead letter; None for our own, and for records that are no dead letters. Pure."""
    headers = record.headers
    topic = TOPICS.get(headers.get("source_topic", ""))
    if topic is None or topic.name in LEDGER_TOPICS or headers.get("reason") not in set(DeadLetterReason):
        return None
    try:
        partition, offset = int(headers["source_partition"]), int(headers["source_offset"])
        moment, key = dt.datetime.fromisoformat(headers["source_timestamp"]).astimezone(dt.UTC), key_of(headers)
    except (LookupError, ValueError, OverflowError):
        return None
    if not (0 <= partition <= LARGEST_PARTITION and 0 <= offset <= LARGEST_OFFSET):
        return None
    first, attempts = retry_of(headers)
    return DeadLetterRow(
        topic=topic.name, generation=topic.generation, partition=partition, offset=offset, key=key, reason=headers["reason"],
        detail=storable(headers.get("detail", "")), raw=record.value, record_at=moment, producer=_producer(headers),
        attempts=attempts, retry_of=first,
    )  # fmt: skip


def _producer(headers: Mapping[str, str]) -> str:
    return storable(headers.get("producer", ""))[:LONGEST_PRODUCER_CHARACTERS] or UNKNOWN_PRODUCER
