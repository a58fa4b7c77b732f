"""The edge of the ledger topics: makes batches of records, calls the service, and decides what an error means.

A batch has three ends: committed; dropped and read again from the ledger (lost compare, database away); or a bug, which
stops the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from backends.broker.partitions import ReadAgainError
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas.errors import RetryLaterError
from schemas.topics import TOPICS, Topic
from streams.batches.batch import BatchOutcome, LedgerBatch, LostCompareError

if TYPE_CHECKING:
    from streams.batches.intake import FetchedRecord

log = get_logger("streams.reading.ledger")
GROUP = "fincoach-streams"

# Reads next offsets from the ledger: (topic, partition numbers) -> next offset by number.
LedgerReader = Callable[[Topic, list[int]], Awaitable[dict[int, int]]]


class LedgerTopic(NamedTuple):
    """What commits the batches of a topic, and what drops the cache of one of its partitions."""

    handle: Callable[[LedgerBatch], Awaitable[BatchOutcome]]
    forget: Callable[[int], None]


class LedgerWork:
    """Brings the records of ledger topics to the service, each partition's from where the ledger stands.

    What its methods promise stands at :class:`backends.broker.partitions.PartitionWork`.
    """

    def __init__(self, topics: Mapping[Topic, LedgerTopic], read_ledger: LedgerReader) -> None:
        self.topics = {topic.name: to for topic, to in topics.items()}
        self._read_ledger = read_ledger

    async def next_offset(self, topic: str, partition: int) -> int:
        """Return the ledger's next offset."""
        return (await self._read_ledger(TOPICS[topic], [partition]))[partition]

    async def take(self, topic: str, partition: int, records: Sequence[FetchedRecord], *, from_offset: int) -> int:
        """Commit ``records`` as one batch, which also covers a gap before them; return the next offset."""
        batch = LedgerBatch(topic=TOPICS[topic], partition=partition, from_offset=from_offset, records=records)
        try:
            await self.topics[topic].handle(batch)
        except LostCompareError as error:
            METRICS.streams_lost_compares.labels(topic=topic).inc()
            log.warning("compare_lost", topic=topic, partition=partition)
            raise ReadAgainError(str(error)) from error
        except RetryLaterError as error:
            log.warning("batch_delayed", topic=topic, partition=partition, error=repr(error))
            raise
        return batch.to_offset

    def forget(self, topic: str, partition: int) -> None:
        """Drop what is cached for a partition."""
        self.topics[topic].forget(partition)
