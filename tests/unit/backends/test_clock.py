"""Clocks: the machine's own, and the one that tests move."""

from __future__ import annotations

import datetime as dt

from backends.clock import Clock, ManualClock, SystemClock

NOON = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)


def test_the_systems_clock_is_aware_and_never_goes_back() -> None:
    """The system's clock gives aware times, and its monotonic time never goes back."""
    clock: Clock = SystemClock()
    moments = [clock.now() for _ in range(3)]
    ticks = [clock.monotonic() for _ in range(3)]
    assert all(moment.utcoffset() == dt.timedelta(0) for moment in moments)
    assert ticks == sorted(ticks)


def test_a_manual_clock_stands_still_until_both_its_hands_are_moved() -> None:
    """A manual clock moves only when told to, and moves both of its times together."""
    clock: Clock = ManualClock(NOON)
    assert clock.now() == clock.now() == NOON
    assert clock.monotonic() == 0.0
    assert isinstance(clock, ManualClock)
    clock.advance(90.0)
    assert clock.now() == NOON + dt.timedelta(seconds=90)
    assert clock.monotonic() == 90.0
