"""Blackouts: weekly windows without training."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.epochs.blackouts import DAYS, covers_the_week, is_blacked_out

MONDAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("window", "day", "clock", "expected"),
    [
        ("Mon 08:00-12:00", 0, "07:59", False),
        ("Mon 08:00-12:00", 0, "08:00", True),
        ("mon 08:00-12:00", 0, "11:59", True),
        ("Mon 08:00-12:00", 0, "12:00", False),
        ("Mon 08:00-12:00", 1, "09:00", False),
        ("Mon-Fri 22:00-06:00", 4, "23:00", True),
        ("Mon-Fri 22:00-06:00", 5, "05:59", True),
        ("Mon-Fri 22:00-06:00", 5, "22:30", False),
        ("Sun 22:00-06:00", 0, "03:00", True),
        ("Sat-Mon 00:00-24:00", 6, "13:00", True),
        ("Sat-Mon 00:00-24:00", 1, "00:00", False),
    ],
)
def test_a_window_is_what_a_person_would_read(window: str, day: int, clock: str, *, expected: bool) -> None:
    """A window covers the days and times that it names, in UTC."""
    hours, minutes = (int(part) for part in clock.split(":"))
    moment = MONDAY + dt.timedelta(days=day, hours=hours, minutes=minutes)
    assert is_blacked_out([window], moment) is expected
    assert is_blacked_out([window], moment.astimezone(dt.timezone(dt.timedelta(hours=9)))) is expected


@pytest.mark.parametrize(
    "text", ["", "Mon", "Mon 8-12", "Moo 08:00-12:00", "Mon 08:60-12:00", "Mon 24:00-12:00", "Mon 25:00-26:00", "Mon-Xyz 08:00-12:00"]
)  # fmt: skip
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    """An invalid window is rejected with a valid example."""
    with pytest.raises(ValueError, match="'Mon 08:00-12:00'"):
        is_blacked_out([text], MONDAY)


def test_a_week_without_a_gap_is_noticed() -> None:
    """Blackouts that cover the whole week are detected."""
    assert covers_the_week(["Mon-Sun 00:00-24:00"])
    assert covers_the_week(["Mon-Sun 08:00-20:00", "Mon-Sun 20:00-08:00"])
    assert not covers_the_week(["Mon-Sat 00:00-24:00", "Sun 00:00-23:59"])


@given(st.sampled_from(DAYS), st.integers(0, 23), st.integers(1, 23), st.integers(0, 7 * 24 * 60 - 1))
def test_a_window_of_some_hours_is_as_long_wherever_it_begins(day: str, start: int, hours: int, minute: int) -> None:
    """A window keeps its length across midnight and the end of the week."""
    window = f"{day} {start:02}:00-{(start + hours) % 24:02}:00"
    begins = (DAYS.index(day) * 24 + start) * 60
    inside = (minute - begins) % (7 * 24 * 60) < hours * 60
    assert is_blacked_out([window], MONDAY + dt.timedelta(minutes=minute)) is inside
