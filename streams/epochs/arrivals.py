"""When a model's data points arrive: decayed averages for each hour of the week, and a forecast from them. Pure.

Only whole hours are averaged; an hour without a pane has no arrivals. The averages decay by a quarter each week, so
half of an old habit is forgotten in three weeks.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

WEEK_HOURS = 7 * 24
DAY_HOURS = 24
NEWEST_WEIGHT = 0.25  # of the newest week, once many are known
# After this many silent hours hardly anything is left of the averages, so a longer silence is cut to it.
LONGEST_SILENCE_HOURS = 16 * WEEK_HOURS
HOUR = dt.timedelta(hours=1)
MONDAY = dt.datetime(1970, 1, 5, tzinfo=dt.UTC)


class ArrivalPattern(msgspec.Struct, frozen=True, kw_only=True):
    """``rates``: data points in each hour of the week (Monday 00 UTC first); ``hours``: whole hours seen; then the current hour."""

    rates: Sequence[float]
    hours: int
    current_hour: dt.datetime
    current_count: int


def observed(pattern: ArrivalPattern | None, at: dt.datetime, count: int) -> ArrivalPattern:
    """Return the pattern after ``count`` data points at ``at``; late ones count for the current hour."""
    hour = at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    if pattern is None:
        return ArrivalPattern(rates=(0.0,) * WEEK_HOURS, hours=0, current_hour=hour, current_count=count)
    passed = (hour - pattern.current_hour) // HOUR
    if passed <= 0:
        return msgspec.structs.replace(pattern, current_count=pattern.current_count + count)
    rates, hours = list(pattern.rates), pattern.hours
    for step in range(min(passed, LONGEST_SILENCE_HOURS)):
        slot = _slot(pattern.current_hour + step * HOUR)
        weight = max(NEWEST_WEIGHT, 1 / (hours // WEEK_HOURS + 1))
        rates[slot] += weight * ((pattern.current_count if step == 0 else 0) - rates[slot])
        hours += 1
    return ArrivalPattern(rates=rates, hours=hours, current_hour=hour, current_count=count)


def expected_ratio(pattern: ArrivalPattern | None, now: dt.datetime) -> float | None:
    """Return the arrivals expected in the 24 hours after ``now``, relative to a mean day; None before a whole week is known."""
    if pattern is None or pattern.hours < WEEK_HOURS:
        return None
    mean_day = sum(pattern.rates) * DAY_HOURS / WEEK_HOURS
    if mean_day <= 0:
        return None
    first = _slot(now)
    return sum(pattern.rates[(first + step) % WEEK_HOURS] for step in range(DAY_HOURS)) / mean_day


def _slot(moment: dt.datetime) -> int:
    return ((moment.astimezone(dt.UTC) - MONDAY) // HOUR) % WEEK_HOURS
