"""The row of the churn model: how lately, how often and for how much a user bought. Pure.

Days are UTC. The state remembers the days of the last 62 weeks on which money was spent; what lies before is in the lifetime
sums alone.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from itertools import pairwise
from math import log1p

import numpy as np
import numpy.typing as npt

from modelkit.features.state import DAYS_KEPT, MILLISECONDS_PER_DAY, MINOR_PER_MAJOR, UserState, milliseconds

WINDOWS = (30, 60, 120, 365)
CHURN_FEATURES = (
    "recency_days",
    "recency_log",
    "tenure_log",
    "recency_to_longest_gap",
    "mean_gap_log",
    *(f"active_days_{days}" for days in WINDOWS),
    "active_days_log",
    *(f"spent_{days}_log" for days in WINDOWS),
    "mean_amount_log",
)
NEVER_DAYS = float(DAYS_KEPT)  # who never bought, or before the state remembers


def churn_features(state: UserState | None, as_of: dt.datetime) -> npt.NDArray[np.float32]:
    """Return the row at ``as_of`` in the order of :data:`CHURN_FEATURES`, shape (15,)."""
    today = milliseconds(as_of) // MILLISECONDS_PER_DAY
    known = 0 if state is None else bisect_right(state.days, today)
    if state is None or known == 0:
        return np.array([NEVER_DAYS, log1p(NEVER_DAYS), *[0.0] * (len(CHURN_FEATURES) - 2)], dtype=np.float32)
    days, amounts = state.days[:known], [minor / MINOR_PER_MAJOR for minor in state.day_minor[:known]]
    recency, span = today - days[-1], days[-1] - days[0]
    gaps = [later - earlier for earlier, later in pairwise(days)]
    return np.array(
        [
            recency,
            log1p(recency),
            log1p(today - days[0]),
            recency / max(gaps, default=max(span, WINDOWS[0])),
            log1p(span / len(gaps)) if gaps else 0.0,
            *(float(sum(day > today - window for day in days)) for window in WINDOWS),
            log1p(len(days)),
            *(log1p(sum(amount for day, amount in zip(days, amounts, strict=True) if day > today - window)) for window in WINDOWS),
            log1p(state.debit_minor / MINOR_PER_MAJOR / max(state.debits, 1)),
        ],
        dtype=np.float32,
    )  # fmt: skip
