"""Freshness: which events are late for their source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import HORIZON_SECONDS, DatasetStatistics, histogram
from schemas.messages.progress import DatasetCounts
from streams.quality.freshness import allowance_seconds, freshness, late

DAY = 86_400.0


def test_who_reports_live_is_late_after_a_day() -> None:
    """Events of a live source are late after a day."""
    ages = histogram([0.0] * 90 + [DAY * 0.9] * 5 + [DAY * 2] * 5)
    assert late(ages) == 5


def test_an_event_exactly_as_old_as_is_allowed_is_not_late() -> None:
    """An age up to the allowance is fresh; only a greater one is late."""
    assert late(histogram([0.0] * 9 + [DAY])) == 0
    assert late(histogram([DAY] * 9 + [DAY * 10])) == 0
    assert late(histogram([float(HORIZON_SECONDS)] * 10)) == 0


def test_the_horizon_is_thirty_days() -> None:
    """The horizon is 30 days, the window of the host's features."""
    assert HORIZON_SECONDS == 30 * DAY
    assert allowance_seconds(histogram([DAY * 29.5])) == HORIZON_SECONDS


def test_who_reports_seldom_is_not_late_for_it() -> None:
    """Events of a source that reports seldom are late only beyond its usual ages."""
    assert late(histogram([DAY * 0.5 * (n % 8) for n in range(100)])) == 0
    assert late(histogram([DAY * 0.5 * (n % 8) for n in range(90)] + [DAY * 40] * 10)) == 10


def test_nothing_is_fresh_beyond_the_horizon() -> None:
    """No event beyond the horizon is fresh, however usual it is."""
    assert allowance_seconds(histogram([DAY * 100] * 10)) == HORIZON_SECONDS
    assert late(histogram([DAY * 100] * 10)) == 10


def test_each_source_is_judged_by_itself() -> None:
    """Each source is judged by its own ages."""
    ages = {"live": histogram([0.0] * 8 + [DAY * 3] * 2), "slow": histogram([DAY] * 7 + [DAY * 3] * 3)}
    statistics = DatasetStatistics(counts=DatasetCounts(relevant=20), fresh=20, ages=ages)
    assert freshness(statistics) == pytest.approx(0.9)


def test_without_ages_the_horizon_decides() -> None:
    """Without ages, freshness follows the horizon alone."""
    assert freshness(DatasetStatistics(counts=DatasetCounts(relevant=10), fresh=7)) == pytest.approx(0.7)
    assert freshness(DatasetStatistics()) is None


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_late_events_are_a_part_of_all(ages: list[float]) -> None:
    """Late events are a part of all events."""
    assert 0 <= late(histogram(ages)) <= len(ages)
