"""The order in which panes are taken, and where an epoch ends."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

import msgspec
import pytest

from backends.database.repositories.datasets import (
    CircumstancesRow,
    Cursor,
    OpenDataset,
    PaneSlice,
    Standing,
)
from modelkit.statistics.sketches import DatasetStatistics, user_sketch
from schemas.messages.progress import DatasetCounts
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import ThresholdDecision
from streams.epochs.collecting import DatasetProgress, OpenEpoch, PaneGapError, in_order, is_due, take_panes
from streams.epochs.thresholds import Circumstances
from streams.panes import PaneStatistics, encode_pane, encode_statistics
from streams.quality.assessment import assess
from tests.unit.streams.worlds import NOON


def pane(partition: int, start: int, end: int, *, at: int, counted: int = 0) -> PaneSlice:
    """Return a pane that was closed ``at`` seconds after noon."""
    counts = DatasetCounts(counted=counted, relevant=counted, fields_expected=counted, fields_present=counted)
    statistics = DatasetStatistics(counts=counts, fresh=counted, users=user_sketch(range(25)))
    sketches = encode_pane(PaneStatistics(datasets={"spending": statistics} if counted else {}))
    return PaneSlice(partition, start, end, NOON + dt.timedelta(seconds=at), {}, sketches)


def opened(*, threshold: int = 100, accumulated: DatasetStatistics | None = None, **parts: object) -> OpenEpoch:
    """Return an open epoch with a fixed threshold unless its parts say otherwise."""
    raw = encode_statistics(accumulated) if accumulated else None
    fixed = {"rule": ThresholdRule(threshold=threshold), "circumstances": Circumstances()}
    return OpenEpoch(dataset=OpenDataset(id=uuid.uuid4(), epoch=4, accumulated=raw), **{**fixed, **parts})  # type: ignore[arg-type]


def take(panes: Sequence[PaneSlice], *, epoch: OpenEpoch | None = None) -> DatasetProgress:
    """Take ``panes`` from the beginning of two partitions."""
    cursors = {0: Cursor(0, 0), 1: Cursor(0, 0)}
    return take_panes(epoch or opened(), cursors, panes, model_type="spending", judge=assess)


def test_panes_come_as_they_were_closed() -> None:
    """Panes are taken in the order in which they were closed."""
    panes = [pane(0, 0, 5, at=1), pane(0, 5, 9, at=4), pane(1, 0, 7, at=2), pane(1, 7, 8, at=3)]
    ordered, is_whole = in_order(panes, most=10)
    assert [(item.partition, item.from_offset) for item in ordered] == [(0, 0), (1, 0), (1, 7), (0, 5)]
    assert is_whole


def test_a_partition_keeps_its_order_when_the_clock_goes_back() -> None:
    """Panes of a partition stay in offset order, even if the clock went back."""
    panes = [pane(0, 0, 5, at=9), pane(0, 5, 9, at=1)]
    assert [item.from_offset for item in in_order(panes, most=10)[0]] == [0, 5]


def test_what_may_belong_behind_an_unread_pane_waits() -> None:
    """Panes that an unread one may precede wait for the next evaluation."""
    panes = [pane(0, 0, 1, at=1), pane(0, 1, 2, at=2), pane(1, 0, 7, at=5)]
    ordered, is_whole = in_order(panes, most=2)
    assert [(item.partition, item.from_offset) for item in ordered] == [(0, 0), (0, 1)]
    assert not is_whole


def test_the_epoch_ends_with_the_pane_that_reaches_the_threshold() -> None:
    """The epoch ends with the first pane that reaches the threshold."""
    panes = [pane(0, 0, 60, at=1, counted=60), pane(0, 60, 99, at=3, counted=39), pane(1, 0, 50, at=2, counted=50)]
    progress = take(panes)
    assert progress.evaluation.fired
    assert (progress.evaluation.counted, progress.taken, progress.is_complete) == (110, 2, False)
    assert [(span.partition, span.from_offset, span.to_offset) for span in progress.ranges()] == [
        (0, 0, 60),
        (1, 0, 50),
    ]


@pytest.mark.parametrize(
    ("moment", "created_at", "age_seconds"),
    [
        (None, None, None),
        (NOON, None, None),
        (None, NOON, None),
        (NOON, NOON - dt.timedelta(seconds=90), 90.0),
        (NOON, NOON + dt.timedelta(seconds=90), 0.0),
    ],
)
def test_an_open_epoch_has_an_age_where_both_moments_are_known(
    moment: dt.datetime | None, created_at: dt.datetime | None, age_seconds: float | None
) -> None:
    """The age is known if both moments are known, and it is never negative."""
    dataset = OpenDataset(id=uuid.uuid4(), epoch=4, accumulated=None, created_at=created_at)
    row = CircumstancesRow(rule=ThresholdRule(threshold=100), moment=moment)
    epoch = OpenEpoch.read(dataset, row, earlier=DatasetStatistics())
    assert epoch.circumstances.age_seconds == age_seconds
    assert epoch.circumstances.moment == moment


def test_what_is_accumulated_counts() -> None:
    """Accumulated statistics count towards the threshold."""
    first = take([pane(0, 0, 60, at=1, counted=60)])
    assert (first.evaluation.fired, first.is_complete, first.evaluation.counted) == (False, True, 60)
    again = take([pane(0, 0, 40, at=1, counted=40)], epoch=opened(accumulated=first.statistics))
    assert again.evaluation.fired


def test_a_rule_that_holds_already_takes_no_pane() -> None:
    """A data set that already fulfils its rule takes no more panes."""
    held = take([pane(0, 0, 60, at=1, counted=60)]).statistics
    progress = take([pane(0, 0, 9, at=2, counted=9)], epoch=opened(threshold=50, accumulated=held))
    assert progress.evaluation.fired
    assert (progress.taken, progress.evaluation.counted, progress.is_complete) == (0, 60, False)


def test_panes_that_do_not_join_stop_everything() -> None:
    """Panes that are not contiguous raise an error."""
    with pytest.raises(PaneGapError):
        take([pane(0, 5, 9, at=1, counted=4)])


def standing(**changes: object) -> Standing:
    """Return a data set at 100 of 500 that was evaluated a moment ago, with one waiting pane."""
    fields: dict[str, object] = {
        "model_type": "spending", "data_count": 100, "threshold": 500, "decision": "waiting_for_count", "idle_seconds": 0.1,
        "age_seconds": 60.0, "configured": 500, "max_age_seconds": 86_400, "cool_down_seconds": 300, "blackouts": ("Wed 11:00-13:00",),
        "moment": NOON, "seconds_since_epoch": 60.0, "panes": 1, "counted": 20,
    }  # fmt: skip
    return Standing(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"counted": 300}, True),  # near the threshold each pane is evaluated
        ({"counted": 299}, False),
        ({"idle_seconds": 1.0}, True),
        ({"idle_seconds": 1.0, "panes": 0}, False),
        ({"panes": 200}, True),
        ({"data_count": 499, "panes": 0, "counted": 0}, False),
        ({"data_count": 499, "panes": 0, "counted": 0, "decision": None}, True),  # of an older version
        ({"age_seconds": 86_400.0}, True),
        ({"age_seconds": 86_400.0, "panes": 0, "counted": 0}, True),
        ({"age_seconds": 86_400.0, "data_count": 70}, False),
        ({"age_seconds": 86_400.0, "max_age_seconds": None}, False),
        ({"counted": 900, "decision": "cooling_down"}, False),
        ({"counted": 900, "decision": "cooling_down", "seconds_since_epoch": 300.0}, True),
        ({"counted": 900, "decision": "in_blackout"}, False),
        ({"counted": 900, "decision": "in_blackout", "blackouts": ()}, True),
        ({"counted": 900, "decision": "waiting_for_quality"}, False),
        ({"counted": 900, "decision": "waiting_for_quality", "idle_seconds": 1.0}, True),
        ({"counted": 900, "decision": "quarantined"}, False),
    ],
)
def test_a_data_set_is_evaluated_when_it_may_fire(changes: dict[str, object], *, expected: bool) -> None:
    """A data set is evaluated when it may fire or its panes have waited long enough."""
    assert is_due(standing(**changes)) is expected


def test_drift_is_measured_only_where_it_may_matter() -> None:
    """Drift is measured for adaptive thresholds only."""
    held = DatasetStatistics(categories={"click": 400, "dismiss": 100})
    moved = DatasetStatistics(categories={"click": 100, "dismiss": 400}, counts=DatasetCounts(counted=50, relevant=50))
    fixed = take([], epoch=opened(accumulated=moved, earlier=held))
    adaptive = take([], epoch=opened(accumulated=moved, earlier=held, rule=ThresholdRule(threshold=100, adaptive=True)))
    assert (fixed.evaluation.threshold, fixed.evaluation.factors.psi) == (100, None)
    assert adaptive.evaluation.threshold == 50
    assert (adaptive.evaluation.factors.psi or 0.0) > 0.5
    assert adaptive.evaluation.decision is ThresholdDecision.WAITING_FOR_QUALITY


def test_users_are_counted_exactly_where_they_are_known() -> None:
    """Users are counted exactly while the counters hold all of them, and estimated otherwise."""
    few = DatasetStatistics(
        counts=DatasetCounts(counted=40, relevant=900, fields_expected=1, fields_present=1), heaviest={b"a": 30, b"b": 10},
        users=user_sketch(range(600)),
    )  # fmt: skip
    known = take([], epoch=opened(accumulated=few)).evaluation.factors
    assert (known.users, known.user_cap) == (2, 50)
    many = msgspec.structs.replace(few, heaviest={b"a": 30})
    estimated = take([], epoch=opened(accumulated=many)).evaluation.factors
    assert estimated.users == pytest.approx(600, rel=0.1)
    assert estimated.user_cap == 2
