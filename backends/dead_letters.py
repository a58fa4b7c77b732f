"""Records that cannot be handled, on the dead-letter topic: the raw bytes, with headers that say where from and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.topics import DEAD_LETTERS

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.broker.kafka import BrokerProducer

LONGEST_DETAIL_CHARACTERS = 1_000


def dead_letter_headers(record: Record, reason: str, detail: str) -> dict[str, str]:
    """Return the headers of a dead letter."""
    return {
        "reason": reason,
        "detail": detail[:LONGEST_DETAIL_CHARACTERS],
        "source_topic": record.topic,
        "source_partition": str(record.partition),
        "source_offset": str(record.offset),
        "source_timestamp": record.timestamp.isoformat(),
    }


class DeadLetterTopic:
    """The dead-letter sink of plain consumers."""

    def __init__(self, producer: BrokerProducer) -> None:
        self._producer = producer

    async def __call__(self, record: Record, reason: str, detail: str) -> None:
        """Keep ``record``; returns when the broker has it.

        Raises:
            RetryLaterError: when the broker is away.
        """
        headers = dead_letter_headers(record, reason, detail)
        await self._producer.publish(DEAD_LETTERS.name, record.topic.encode(), record.value, headers=headers)
