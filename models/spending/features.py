"""The weekly spending series, what is derived from it, and the row of the spending model. Pure.

A week is seven complete UTC days, counted back from the start of ``as_of``'s day: the last element of a series ends
with the day before ``as_of``'s. Nothing of the day of ``as_of`` enters, so no week is ever partial and the first forecast
step is the seven days that begin with that day. What was spent later is read the same way from a later state:
``weekly_series(later, as_of + 28 days, weeks=4)`` is the truth of a four-step forecast made at ``as_of``.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from math import cos, pi, sin

import numpy as np
import numpy.typing as npt

from modelkit.features.state import (
    CATEGORIES,
    DAYS_KEPT,
    MILLISECONDS_PER_DAY,
    MINOR_PER_MAJOR,
    UserState,
    milliseconds,
)

FloatRow = npt.NDArray[np.float32]

SERIES_WEEKS = 52
FORECAST_STEPS = 4
MAX_WEEKS = DAYS_KEPT // 7 - 1
EWMA_ALPHA = 0.2

WEEK_FEATURES = tuple(f"week_{back:02d}" for back in range(SERIES_WEEKS, 0, -1))
DERIVED_FEATURES = (
    "scale",
    "mean_4",
    "mean_13",
    "mean_26",
    "mean_52",
    "ewma",
    "active_share_4",
    "active_share_13",
    "active_share_26",
    "active_share_52",
    "month_median",
    "month_max",
    "weeks_since_active",
    "weeks_observed",
    "season_sin",
    "season_cos",
)
SHARE_FEATURES = tuple(f"share_{name}" for name in CATEGORIES)
SPENDING_FEATURES = WEEK_FEATURES + DERIVED_FEATURES + SHARE_FEATURES


def weekly_series(state: UserState | None, as_of: dt.datetime, *, weeks: int = SERIES_WEEKS) -> FloatRow:
    """Return the debits of each of the last ``weeks`` complete weeks in major units, oldest first, shape (weeks,).

    Raises:
        ValueError: for more than :data:`MAX_WEEKS` weeks, which a state does not remember.
    """
    if not 1 <= weeks <= MAX_WEEKS:
        message = f"a state remembers between 1 and {MAX_WEEKS} weeks, not {weeks}"
        raise ValueError(message)
    return np.array(_week_sums(state, milliseconds(as_of) // MILLISECONDS_PER_DAY, weeks), dtype=np.float32)


def spending_features(state: UserState | None, as_of: dt.datetime) -> FloatRow:
    """Return the row of the spending model, in the order of :data:`SPENDING_FEATURES`: 52 weeks, 16 derived values, 11 category shares."""
    day = milliseconds(as_of) // MILLISECONDS_PER_DAY
    series = _week_sums(state, day, SERIES_WEEKS)
    observed = 0.0 if state is None else max(0.0, (day - state.first_at // MILLISECONDS_PER_DAY) / 7.0)
    return np.array([*series, *_derived(series, observed), *_season(as_of), *_shares(state)], dtype=np.float32)


def ewma(series: list[float]) -> float:
    """Return the exponentially weighted mean of a series, oldest first; weights sum to 1 from the first week on."""
    level = weight = 0.0
    for value in series:
        level = (1.0 - EWMA_ALPHA) * level + EWMA_ALPHA * value
        weight = (1.0 - EWMA_ALPHA) * weight + EWMA_ALPHA
    return level / weight if weight else 0.0


def _week_sums(state: UserState | None, day: int, weeks: int) -> list[float]:
    sums = [0] * weeks
    if state is not None:
        days, totals = state.days, state.day_minor
        for index in range(bisect_left(days, day - 7 * weeks), bisect_left(days, day)):
            sums[weeks - 1 - (day - 1 - days[index]) // 7] += totals[index]
    return [amount / MINOR_PER_MAJOR for amount in sums]


def _derived(series: list[float], observed: float) -> list[float]:
    spans = (4, 13, 26, 52)
    means = [sum(series[-span:]) / span for span in spans]
    active = [sum(value > 0.0 for value in series[-span:]) / span for span in spans]
    months = sorted(sum(series[start : start + 4]) for start in range(0, SERIES_WEEKS, 4))
    last = next((back for back, value in enumerate(reversed(series)) if value > 0.0), SERIES_WEEKS)
    middle = len(months) // 2
    return [
        max(means[2], 1.0),
        *means,
        ewma(series),
        *active,
        months[middle],
        months[-1],
        float(last),
        min(observed, float(MAX_WEEKS)),
    ]


def _season(as_of: dt.datetime) -> tuple[float, float]:
    angle = 2.0 * pi * as_of.astimezone(dt.UTC).timetuple().tm_yday / 365.25
    return sin(angle), cos(angle)


def _shares(state: UserState | None) -> list[float]:
    """Return each category's share of all debits so far; zeros when there are none."""
    if state is None or state.debit_minor == 0:
        return [0.0] * len(CATEGORIES)
    return [amount / state.debit_minor for amount in state.category_minor]
