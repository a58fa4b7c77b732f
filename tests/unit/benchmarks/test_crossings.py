"""Which event crosses a threshold, and how long its message took."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from benchmarks.crossings import Counted, Pane, Reached, crossed_at, delays_ms
from benchmarks.services import BenchmarkError
from schemas.messages.envelope import OffsetRange
from schemas.messages.training import ThresholdReached
from schemas.topics import BEHAVIORAL_EVENTS

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def pane(second: int, partition: int, first: int, end: int, counted: int) -> Pane:
    """Return a pane that was closed so many seconds after noon."""
    return Pane(NOON + dt.timedelta(seconds=second), partition, first, end, counted)


@pytest.fixture
def counted() -> Counted:
    """Give two partitions in which every even offset counts, acknowledged at 100 + its offset and 200 + its offset."""
    found = Counted()
    for partition in (0, 1):
        for offset in range(0, 40, 2):
            found.add(partition, offset, at=100.0 * (partition + 1) + offset)
    return found


@pytest.mark.parametrize(
    ("threshold", "at"),
    [(1, 200.0), (5, 208.0), (6, 100.0), (10, 108.0), (11, 210.0), (15, 218.0)],
)
def test_the_crossing_event_is_found_by_counting_panes_as_they_were_closed(
    counted: Counted, threshold: int, at: float
) -> None:
    """Time would be taken from an event before or after the one that made the count full."""
    panes = [pane(2, 0, 0, 10, 5), pane(3, 1, 10, 20, 5), pane(1, 1, 0, 10, 5)]
    assert crossed_at(panes, counted, threshold=threshold) == at


def test_a_pane_that_counts_other_events_than_were_sent_ends_the_measurement(counted: Counted) -> None:
    """The position of the crossing event would be a guess."""
    with pytest.raises(BenchmarkError, match="counts 4 events where 5 were sent"):
        crossed_at([pane(1, 0, 0, 10, 4)], counted, threshold=1)


def test_an_epoch_below_its_threshold_ends_the_measurement(counted: Counted) -> None:
    """An epoch that was closed too early would look quick."""
    with pytest.raises(BenchmarkError, match="closed with 5 events, below its threshold of 6"):
        crossed_at([pane(1, 0, 0, 10, 5)], counted, threshold=6)


def test_only_the_panes_of_an_epoch_are_counted_and_the_warm_up_is_left_out(counted: Counted) -> None:
    """Events of the epoch before would be counted again, or the first slow moments would decide the percentile."""
    panes = {"spending": [pane(1, 0, 0, 10, 5), pane(2, 0, 10, 20, 5)]}
    reached = [Reached(100.5, message(0, 10, 1)), Reached(110.25, message(10, 20, 1))]
    everything = {"spending": counted}
    assert delays_ms(reached, panes, everything, since=0.0) == [500.0, 250.0]
    assert delays_ms(reached, panes, everything, since=105.0) == [250.0]


def message(first: int, end: int, threshold: int) -> ThresholdReached:
    """Return the message of an epoch of one partition."""
    covered = OffsetRange(topic=BEHAVIORAL_EVENTS.name, generation=1, partition=0, from_offset=first, to_offset=end)
    return ThresholdReached(
        event_id=uuid.uuid4(),
        occurred_at=NOON,
        model_type="spending",
        epoch=1,
        training_dataset_id=uuid.uuid4(),
        evaluation_id=uuid.uuid4(),
        counted=5,
        threshold=threshold,
        quality_score=1.0,
        quality={},
        ranges=(covered,),
    )
