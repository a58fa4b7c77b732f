"""In which order panes are taken, and where an epoch ends."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

import pytest

from backends.database.repositories.datasets import Cursor, OpenDataset, PaneSlice
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import ModelType
from streams.panes import PaneStatistics, encode_pane, encode_statistics
from streams.quality import assess
from streams.readiness import DatasetProgress, PaneHoleError, in_order, take_panes
from streams.sketches import DatasetStatistics, user_sketch
from tests.unit.streams.worlds import NOON


def pane(partition: int, start: int, end: int, *, at: int, counted: int = 0) -> PaneSlice:
    """Return a pane that was closed ``at`` seconds after noon."""
    counts = DatasetCounts(counted=counted, relevant=counted, fields_expected=counted, fields_present=counted)
    statistics = DatasetStatistics(counts=counts, fresh=counted, users=user_sketch(range(25)))
    sketches = encode_pane(PaneStatistics(datasets={"spending": statistics} if counted else {}))
    return PaneSlice(partition, start, end, NOON + dt.timedelta(seconds=at), {}, sketches)


def opened(*, threshold: int = 100, accumulated: DatasetStatistics | None = None) -> OpenDataset:
    """Return an open data set."""
    return OpenDataset(
        id=uuid.uuid4(), epoch=4, data_count=0, accumulated=encode_statistics(accumulated) if accumulated else None,
        threshold=threshold, quality_gate=0.8, cool_down_seconds=0, seconds_since_epoch=None, last_decision=None,
    )  # fmt: skip


def take(panes: Sequence[PaneSlice], *, dataset: OpenDataset | None = None) -> DatasetProgress:
    """Take ``panes`` from the beginning of two partitions."""
    cursors = {0: Cursor(0, 0), 1: Cursor(0, 0)}
    return take_panes(dataset or opened(), cursors, panes, model_type=ModelType.SPENDING, judge=assess)


def test_panes_come_as_they_were_closed() -> None:
    """An epoch would depend on the numbering of partitions."""
    panes = [pane(0, 0, 5, at=1), pane(0, 5, 9, at=4), pane(1, 0, 7, at=2), pane(1, 7, 8, at=3)]
    ordered, is_whole = in_order(panes, most=10)
    assert [(item.partition, item.from_offset) for item in ordered] == [(0, 0), (1, 0), (1, 7), (0, 5)]
    assert is_whole


def test_a_partition_keeps_its_order_when_the_clock_goes_back() -> None:
    """A clock that is set back would tear a hole into a partition."""
    panes = [pane(0, 0, 5, at=9), pane(0, 5, 9, at=1)]
    assert [item.from_offset for item in in_order(panes, most=10)[0]] == [0, 5]


def test_what_may_belong_behind_an_unread_pane_waits() -> None:
    """With a long backlog the epochs would depend on how much is read at once."""
    panes = [pane(0, 0, 1, at=1), pane(0, 1, 2, at=2), pane(1, 0, 7, at=5)]
    ordered, is_whole = in_order(panes, most=2)
    assert [(item.partition, item.from_offset) for item in ordered] == [(0, 0), (0, 1)]
    assert not is_whole


def test_the_epoch_ends_with_the_pane_that_reaches_the_threshold() -> None:
    """An epoch would be cut within a pane, or go on after its threshold."""
    panes = [pane(0, 0, 60, at=1, counted=60), pane(0, 60, 99, at=3, counted=39), pane(1, 0, 50, at=2, counted=50)]
    progress = take(panes)
    assert progress.evaluation.fired
    assert (progress.evaluation.counted, progress.taken, progress.is_complete) == (110, 2, False)
    assert [(span.partition, span.from_offset, span.to_offset) for span in progress.ranges()] == [
        (0, 0, 60),
        (1, 0, 50),
    ]


def test_what_is_accumulated_counts() -> None:
    """A restart would begin an epoch anew."""
    first = take([pane(0, 0, 60, at=1, counted=60)])
    assert (first.evaluation.fired, first.is_complete, first.evaluation.counted) == (False, True, 60)
    again = take([pane(0, 0, 40, at=1, counted=40)], dataset=opened(accumulated=first.statistics))
    assert again.evaluation.fired


def test_a_rule_that_holds_already_takes_no_pane() -> None:
    """After a lower threshold, new data would be drawn into the old epoch."""
    held = take([pane(0, 0, 60, at=1, counted=60)]).statistics
    progress = take([pane(0, 0, 9, at=2, counted=9)], dataset=opened(threshold=50, accumulated=held))
    assert progress.evaluation.fired
    assert (progress.taken, progress.evaluation.counted, progress.is_complete) == (0, 60, False)


def test_panes_that_do_not_join_stop_everything() -> None:
    """Offsets that nobody counted would be trained on."""
    with pytest.raises(PaneHoleError):
        take([pane(0, 5, 9, at=1, counted=4)])
