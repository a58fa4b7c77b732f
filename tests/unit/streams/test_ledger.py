"""The edge of the ledger topics: what becomes of a batch, and what its errors mean to the reader."""

from __future__ import annotations

import pytest
import structlog.testing

from backends.broker.partitions import ReadAgainError
from backends.telemetry.metrics import REGISTRY
from schemas.errors import RetryLaterError
from schemas.topics import BEHAVIORAL_EVENTS, Topic
from streams.batches.batch import BatchOutcome, LedgerBatch, LostCompareError
from streams.reading.ledger import LedgerTopic, LedgerWork
from tests.unit.streams.worlds import FetchedEvent, paid

EVENTS = BEHAVIORAL_EVENTS.name
RECORDS = [FetchedEvent(paid(), offset=offset) for offset in (7, 8)]
DONE = BatchOutcome(archived=2, duplicates=0, dead_lettered=0)


def work(outcome: BatchOutcome | Exception, batches: list[LedgerBatch], forgotten: list[int]) -> LedgerWork:
    """Return the work over a ledger that stands at ten times the partition's number."""

    async def handle(batch: LedgerBatch) -> BatchOutcome:
        batches.append(batch)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def read(topic: Topic, partitions: list[int]) -> dict[int, int]:
        assert topic is BEHAVIORAL_EVENTS
        return {partition: 10 * partition for partition in partitions}

    return LedgerWork({BEHAVIORAL_EVENTS: LedgerTopic(handle, forgotten.append)}, read)


async def test_a_batch_begins_where_the_ledger_stands_and_covers_a_gap() -> None:
    """The panes of a partition join, whatever the broker has no longer."""
    batches, forgotten = list[LedgerBatch](), list[int]()
    ledger = work(DONE, batches, forgotten)
    assert await ledger.next_offset(EVENTS, 3) == 30
    assert await ledger.take(EVENTS, 3, RECORDS, from_offset=5) == 9
    ledger.forget(EVENTS, 3)
    [batch] = batches
    assert (batch.topic, batch.partition, batch.from_offset, batch.records) == (BEHAVIORAL_EVENTS, 3, 5, RECORDS)
    assert forgotten == [3]


@pytest.mark.parametrize(
    ("error", "raised", "event", "counted"),
    [
        (LostCompareError(), ReadAgainError, "compare_lost", 1),
        (RetryLaterError("away"), RetryLaterError, "batch_delayed", 0),
    ],
)
async def test_a_lost_compare_and_an_outage_are_recorded_and_told_to_the_reader(
    error: Exception, raised: type[Exception], event: str, counted: int
) -> None:
    """Operators see refused zombies and outages, and the reader asks the ledger again."""
    before = lost_compares()
    with structlog.testing.capture_logs() as logs, pytest.raises(raised):
        await work(error, [], []).take(EVENTS, 3, RECORDS, from_offset=7)
    assert [(line["event"], line["topic"], line["partition"]) for line in logs] == [(event, EVENTS, 3)]
    assert lost_compares() - before == counted


async def test_a_bug_comes_out_as_it_is() -> None:
    """The reader stops the process; a batch that cannot be done is not skipped."""
    with pytest.raises(ArithmeticError):
        await work(ArithmeticError("planted"), [], []).take(EVENTS, 3, RECORDS, from_offset=7)


def lost_compares() -> float:
    """Return how many compares were lost on the events' topic."""
    return REGISTRY.get_sample_value("fincoach_streams_lost_compares_total", {"topic": EVENTS}) or 0.0
