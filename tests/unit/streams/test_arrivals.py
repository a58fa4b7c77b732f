"""Patterns of arrivals by hour of the week."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.epochs.arrivals import WEEK_HOURS, ArrivalPattern, expected_ratio, observed

MONDAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def week(pattern: ArrivalPattern | None, number: int, *, busy: int = 100, quiet: int = 10) -> ArrivalPattern:
    """Add week ``number``: ``busy`` data points in each hour of Saturday and Sunday, ``quiet`` in all others."""
    for hour in range(WEEK_HOURS):
        at = MONDAY + (number * WEEK_HOURS + hour) * HOUR
        pattern = observed(pattern, at + dt.timedelta(minutes=20), busy if hour >= 5 * 24 else quiet)
    assert pattern is not None
    return pattern


def test_nothing_is_expected_before_a_week_is_known() -> None:
    """Nothing is expected before a whole week is known."""
    pattern = week(None, 0)
    assert pattern.hours == WEEK_HOURS - 1
    assert expected_ratio(pattern, MONDAY) is None
    assert expected_ratio(None, MONDAY) is None


def test_the_next_day_is_known_from_the_week() -> None:
    """The next day's arrivals are expected from the same hours of earlier weeks."""
    pattern = observed(week(None, 0), MONDAY + WEEK_HOURS * HOUR, 10)
    mean = (5 * 10 + 2 * 100) / 7
    assert expected_ratio(pattern, MONDAY + WEEK_HOURS * HOUR) == pytest.approx(10 / mean)
    assert expected_ratio(pattern, MONDAY + (WEEK_HOURS + 5 * 24) * HOUR) == pytest.approx(100 / mean)
    assert expected_ratio(pattern, MONDAY + (WEEK_HOURS + 4 * 24 + 12) * HOUR) == pytest.approx((10 + 100) / 2 / mean)


def test_a_new_habit_is_learned_within_two_months() -> None:
    """A new habit replaces the old one over eight weeks, not at once."""
    pattern = None
    for number in range(4):
        pattern = week(pattern, number)
    assert pattern is not None
    after = []
    for number in range(4, 12):
        pattern = week(pattern, number, busy=10, quiet=10)
        after.append(expected_ratio(pattern, MONDAY + 5 * 24 * HOUR))
    assert after[0] is not None
    assert after[0] > 2
    assert after[-1] == pytest.approx(1, abs=0.55)


def test_a_silent_hour_counts_as_none() -> None:
    """An hour without events counts as zero arrivals."""
    pattern = observed(observed(None, MONDAY, 50), MONDAY + 3 * HOUR, 7)
    assert (list(pattern.rates[:4]), pattern.hours, pattern.current_count) == ([50, 0, 0, 0], 3, 7)


def test_what_comes_late_is_not_lost() -> None:
    """Late data points count for the current hour."""
    pattern = observed(observed(None, MONDAY + HOUR, 5), MONDAY + dt.timedelta(minutes=59), 3)
    assert (pattern.current_hour, pattern.current_count) == (MONDAY + HOUR, 8)
    assert observed(pattern, MONDAY + dt.timedelta(minutes=80), 4).current_count == 12


def test_years_of_silence_are_passed_in_a_moment() -> None:
    """A long silence is averaged in bounded time."""
    pattern = observed(week(None, 0), MONDAY + 100 * 52 * WEEK_HOURS * HOUR, 1)
    assert sum(pattern.rates) < 0.02 * (5 * 24 * 10 + 2 * 24 * 100)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 1_000)), max_size=40))
def test_averages_lie_within_what_was_seen(seen: list[tuple[int, int]]) -> None:
    """Averages and expectations stay within what was seen."""
    pattern = None
    for minute, count in sorted(seen):
        pattern = observed(pattern, MONDAY + dt.timedelta(minutes=minute), count)
    if pattern is not None:
        assert min(pattern.rates) >= 0
        assert max(pattern.rates) <= sum(count for _, count in seen)
        ratio = expected_ratio(pattern, MONDAY)
        assert ratio is None or 0 <= ratio <= 7 + 1e-9
