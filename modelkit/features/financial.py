"""The 35 state features of the host, in its order and by its formulas. Pure.

Base features look at the 7 days and behavioural ones at the 30 days that end at ``as_of`` (``as_of`` included, the start
not). Days, weekdays and hours are UTC, as the host's naive timestamps are. Where the host leaves it open: standard
deviations are those of a population; daily sums are over days that have debits; a share over no debits is 0; transactions
without a merchant belong to no merchant, and those without a balance to no balance.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from modelkit.features.state import (
    CATEGORIES,
    CREDIT,
    MILLISECONDS_PER_DAY,
    MILLISECONDS_PER_HOUR,
    MINOR_PER_MAJOR,
    Transaction,
    UserState,
    milliseconds,
)

STATE_FEATURES = (
    "current_balance",
    "total_spending",
    "total_income",
    "transaction_count",
    *CATEGORIES,
    "savings_rate",
    "spending_velocity",
    "weekday_spending_ratio",
    "weekend_spending_ratio",
    "morning_spending_ratio",
    "evening_spending_ratio",
    "spending_volatility",
    "large_transaction_ratio",
    "impulse_buying_score",
    "category_diversity",
    "spending_consistency",
    "budget_adherence_score",
    "savings_consistency",
    "emergency_fund_ratio",
    "debt_indicator",
    "merchant_loyalty_score",
    "location_diversity",
    "seasonal_spending_factor",
    "balance_volatility",
    "financial_stress_indicator",
)
DEFAULT_BALANCE = 1_000.0
WEEK = 7 * MILLISECONDS_PER_DAY
MONTH = 30 * MILLISECONDS_PER_DAY

_NOON = 12
_EVENING = 18
_FESTIVE_MONTHS = (11, 12, 1)
_BEHAVIOURAL = 18
_moment_of = itemgetter(0)


def state_features(state: UserState | None, as_of: dt.datetime) -> npt.NDArray[np.float32]:
    """Return the 35 features at ``as_of``, shape (35,); an unknown user has a balance of 1,000 and zeros."""
    return np.array(state_values(state, as_of), dtype=np.float32)


def state_values(state: UserState | None, as_of: dt.datetime) -> list[float]:
    """Return the 35 features as Python floats, for callers that append to them."""
    now = milliseconds(as_of)
    month = _window(state.recent, now - MONTH, now) if state is not None else []
    balance = _balance(month)
    week = month[bisect_right(month, now - WEEK, key=_moment_of) :]
    behaviour = _behaviour(month, balance, as_of) if month else [0.0] * _BEHAVIOURAL
    return _base(week, balance) + behaviour


def _window(recent: list[Transaction], after: int, until: int) -> list[Transaction]:
    if not recent or (recent[0][0] > after and recent[-1][0] <= until):
        return recent
    return recent[bisect_right(recent, after, key=_moment_of) : bisect_right(recent, until, key=_moment_of)]


def _balance(month: list[Transaction]) -> float:
    for transaction in reversed(month):
        if transaction[4] is not None:
            return transaction[4] / MINOR_PER_MAJOR
    return DEFAULT_BALANCE


def _base(week: list[Transaction], balance: float) -> list[float]:
    income = 0
    per_category = [0] * len(CATEGORIES)
    for _, amount, category, _, _ in week:
        if category == CREDIT:
            income += amount
        else:
            per_category[category] += amount
    spent = sum(per_category) / MINOR_PER_MAJOR
    earned = income / MINOR_PER_MAJOR
    categories = [amount / MINOR_PER_MAJOR for amount in per_category]
    return [balance, spent, earned, float(len(week)), *categories, (earned - spent) / max(earned, 1.0), spent / 7.0]


def _behaviour(month: list[Transaction], balance: float, as_of: dt.datetime) -> list[float]:
    debits = [transaction for transaction in month if transaction[2] != CREDIT]
    spent = sum(transaction[1] for transaction in debits) / MINOR_PER_MAJOR
    earned = sum(transaction[1] for transaction in month if transaction[2] == CREDIT) / MINOR_PER_MAJOR
    sums = _daily_sums(debits)
    mean, deviation = _mean_and_deviation(sums)
    loyalty, diversity = _merchants(debits)
    debt, balance_deviation, stress = _balances(month)
    return [
        *_times(debits, spent),
        deviation,
        _large_share(debits),
        _impulse_share(debits),
        len({transaction[2] for transaction in debits}) / len(CATEGORIES),
        1.0 - deviation / max(mean, 1.0) if debits else 0.0,
        max(0.0, 1.0 - (spent / 4.0) / max(0.8 * earned / 4.0, 1.0)),
        _savings_consistency(month, milliseconds(as_of)),
        balance / max(spent, 1.0),
        debt,
        loyalty,
        diversity,
        1.2 if as_of.astimezone(dt.UTC).month in _FESTIVE_MONTHS else 1.0,
        balance_deviation,
        stress,
    ]


def _daily_sums(debits: list[Transaction]) -> list[float]:
    sums: dict[int, int] = {}
    for at, amount, _, _, _ in debits:
        day = at // MILLISECONDS_PER_DAY
        sums[day] = sums.get(day, 0) + amount
    return [amount / MINOR_PER_MAJOR for amount in sums.values()]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and population standard deviation; (0, 0) of nothing."""
    if not values:
        return 0.0, 0.0
    mean = sum(values) / len(values)
    return mean, sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _times(debits: list[Transaction], spent: float) -> tuple[float, float, float, float]:
    """Return the shares of the amount on weekdays, at weekends, before 12:00 and from 18:00."""
    if spent <= 0.0:
        return 0.0, 0.0, 0.0, 0.0
    weekend = morning = evening = 0
    for at, amount, _, _, _ in debits:
        day, rest = divmod(at, MILLISECONDS_PER_DAY)
        if (day + 3) % 7 >= 5:  # noqa: PLR2004 - 1970-01-01 was a Thursday; 5 and 6 are Saturday and Sunday
            weekend += amount
        hour = rest // MILLISECONDS_PER_HOUR
        if hour < _NOON:
            morning += amount
        elif hour >= _EVENING:
            evening += amount
    total = spent * MINOR_PER_MAJOR
    return 1.0 - weekend / total, weekend / total, morning / total, evening / total


def _large_share(debits: list[Transaction]) -> float:
    if not debits:
        return 0.0
    amounts = sorted(transaction[1] for transaction in debits)
    middle = len(amounts) // 2
    twice_median = 2 * amounts[middle] if len(amounts) % 2 else amounts[middle - 1] + amounts[middle]
    return (len(amounts) - bisect_right(amounts, twice_median)) / len(amounts)


def _impulse_share(debits: list[Transaction]) -> float:
    """Return the share of debits that follow the one before within an hour."""
    if not debits:
        return 0.0
    quick = sum(later[0] - earlier[0] <= MILLISECONDS_PER_HOUR for earlier, later in pairwise(debits))
    return quick / len(debits)


def _savings_consistency(month: list[Transaction], now: int) -> float:
    """Return 1 - sd / max(mean, 1) of what was saved in each of the four weeks before ``now``."""
    saved = [0, 0, 0, 0]
    for at, amount, category, _, _ in month:
        week = (now - at) // WEEK
        if week < len(saved):
            saved[week] += amount if category == CREDIT else -amount
    mean, deviation = _mean_and_deviation([amount / MINOR_PER_MAJOR for amount in saved])
    return 1.0 - deviation / max(mean, 1.0)


def _merchants(debits: list[Transaction]) -> tuple[float, float]:
    """Return the share of the commonest merchant, and distinct merchants per debit."""
    merchants = Counter(transaction[3] for transaction in debits if transaction[3])
    if not merchants:
        return 0.0, 0.0
    return max(merchants.values()) / len(debits), len(merchants) / len(debits)


def _balances(month: list[Transaction]) -> tuple[float, float, float]:
    """Return the share of negative balances, the balances' deviation, and the share below a fifth of their mean."""
    balances = [transaction[4] / MINOR_PER_MAJOR for transaction in month if transaction[4] is not None]
    if not balances:
        return 0.0, 0.0, 0.0
    mean, deviation = _mean_and_deviation(balances)
    count = len(balances)
    return (
        sum(value < 0.0 for value in balances) / count,
        deviation,
        sum(value < 0.2 * mean for value in balances) / count,
    )
