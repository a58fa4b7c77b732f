"""The 35 state features against values that were computed by hand from the host's words."""

from __future__ import annotations

import datetime as dt
from math import sqrt

import numpy as np
import pytest

from fincoach_events.events import TransactionCreated
from modelkit.features import STATE_FEATURES, UserState, fold, state_features
from tests.unit.models.samples import at, page_view, transaction

AS_OF = at("2026-03-31 12:00")  # a Tuesday

HISTORY = [
    transaction(at("2026-03-05 09:00"), 100, "bills", merchant="Rent", balance_after_minor=900_00),
    transaction(at("2026-03-14 10:00"), 20, merchant="Shop", balance_after_minor=880_00),  # a Saturday
    transaction(at("2026-03-14 10:30"), 10, "dine_out", merchant="Cafe", balance_after_minor=870_00),
    transaction(at("2026-03-20 08:00"), 500, "income", transaction_type="credit", balance_after_minor=1370_00),
    transaction(at("2026-03-27 19:00"), 60, merchant="Shop", balance_after_minor=1310_00),
    transaction(at("2026-03-30 20:00"), 30, "entertainment", balance_after_minor=-50_00),
    transaction(at("2026-03-31 11:00"), 40, "income", transaction_type="credit", balance_after_minor=-10_00),
]

# Debits of 30 days: 100, 20, 10, 60, 30 = 220; credits 540. Daily sums 100, 30, 60, 30: mean 55, variance 825.
# Put aside in the four weeks, newest first: -50, 500, -30, -100: mean 80, variance 59,450.
# Balances: mean 5,270 / 7, mean of squares 5,936,900 / 7; a fifth of the mean is 150.6.
EXPECTED = {
    "current_balance": -10,
    "total_spending": 90,
    "total_income": 40,
    "transaction_count": 3,
    "groceries": 60,
    "dine_out": 0,
    "entertainment": 30,
    "bills": 0,
    "transport": 0,
    "shopping": 0,
    "health": 0,
    "fitness": 0,
    "savings": 0,
    "income": 0,
    "other": 0,
    "savings_rate": (40 - 90) / 40,
    "spending_velocity": 90 / 7,
    "weekday_spending_ratio": 190 / 220,
    "weekend_spending_ratio": 30 / 220,
    "morning_spending_ratio": 130 / 220,
    "evening_spending_ratio": 90 / 220,
    "spending_volatility": sqrt(825),
    "large_transaction_ratio": 1 / 5,
    "impulse_buying_score": 1 / 5,
    "category_diversity": 4 / 11,
    "spending_consistency": 1 - sqrt(825) / 55,
    "budget_adherence_score": 1 - 55 / 108,
    "savings_consistency": 1 - sqrt(59_450) / 80,
    "emergency_fund_ratio": -10 / 220,
    "debt_indicator": 2 / 7,
    "merchant_loyalty_score": 2 / 5,
    "location_diversity": 3 / 5,
    "seasonal_spending_factor": 1.0,
    "balance_volatility": sqrt(5_936_900 / 7 - (5_270 / 7) ** 2),
    "financial_stress_indicator": 2 / 7,
}


def folded(events: list[TransactionCreated]) -> UserState:
    """Return the state after the events."""
    state: UserState | None = None
    for event in events:
        state = fold(state, event)
    assert state is not None
    return state


def feature(state: UserState | None, name: str, as_of: dt.datetime = AS_OF) -> float:
    """Return one feature by name."""
    return float(state_features(state, as_of)[STATE_FEATURES.index(name)])


def test_names_are_those_of_the_host_in_its_order() -> None:
    """The names are the host's, in its order."""
    assert list(EXPECTED) == list(STATE_FEATURES)
    assert len(STATE_FEATURES) == 35


@pytest.mark.parametrize("name", STATE_FEATURES)
def test_feature_has_its_hand_computed_value(name: str) -> None:
    """Each feature has the value that was computed by hand from the contract."""
    assert feature(folded(HISTORY), name) == pytest.approx(EXPECTED[name], rel=1e-6)


@pytest.mark.parametrize("category", STATE_FEATURES[4:15])
def test_each_category_sums_its_own_debits(category: str) -> None:
    """Each category sums its own debits."""
    state = folded([transaction(AS_OF, 12.5, category), transaction(AS_OF, 99, category, transaction_type="credit")])
    row = state_features(state, AS_OF)
    assert row[STATE_FEATURES.index(category)] == 12.5
    assert row[4:15].sum() == 12.5


def test_unknown_user_has_the_default_balance_and_zeros() -> None:
    """An unknown user gets the host's default row."""
    expected = np.zeros(35, dtype=np.float32)
    expected[0] = 1_000
    assert np.array_equal(state_features(None, AS_OF), expected)
    assert np.array_equal(state_features(fold(None, page_view(AS_OF)), AS_OF), expected)


def test_thirty_quiet_days_bring_the_default_row_back() -> None:
    """A state that is asked about a month later gives the default row."""
    state = folded(HISTORY)
    assert np.array_equal(state_features(state, AS_OF + dt.timedelta(days=31)), state_features(None, AS_OF))


def test_windows_end_at_the_moment_of_the_request() -> None:
    """Seven days later the week's sums are empty, and the month still knows the transactions."""
    state = folded(HISTORY)
    later = AS_OF + dt.timedelta(days=7)
    assert feature(state, "total_spending", later) == 0
    assert feature(state, "transaction_count", later) == 0
    assert feature(state, "large_transaction_ratio", later) > 0


def test_week_excludes_its_start_and_includes_its_end() -> None:
    """A week excludes its start and includes its end."""
    week = dt.timedelta(days=7)
    state = folded([transaction(AS_OF - week, 1), transaction(AS_OF, 2)])
    assert feature(state, "total_spending") == 2
    assert feature(state, "total_spending", AS_OF - week) == 1


def test_what_comes_after_the_moment_is_not_seen() -> None:
    """A row sees nothing that came after its moment."""
    state = folded(HISTORY)
    before = at("2026-03-28 00:00")
    assert np.array_equal(state_features(state, before), state_features(folded(HISTORY[:5]), before))


@pytest.mark.parametrize(("month", "factor"), [(1, 1.2), (2, 1.0), (10, 1.0), (11, 1.2), (12, 1.2)])
def test_season_is_november_to_january(month: int, factor: float) -> None:
    """The season is November to January."""
    moment = dt.datetime(2026, month, 15, tzinfo=dt.UTC)
    state = folded([transaction(moment, 1)])
    assert feature(state, "seasonal_spending_factor", moment) == pytest.approx(factor)


def test_balance_is_the_latest_known_one() -> None:
    """A transaction without a balance leaves the last known one in place."""
    state = folded([transaction(AS_OF - dt.timedelta(days=1), 1, balance_after_minor=55_00), transaction(AS_OF, 1)])
    assert feature(state, "current_balance") == 55
    assert feature(state, "debt_indicator") == 0


def test_month_of_credits_alone_has_no_debit_features() -> None:
    """Without debits, every share of debits is 0."""
    row = state_features(folded([transaction(AS_OF, 10, transaction_type="credit")]), AS_OF)
    assert np.isfinite(row).all()
    assert row[STATE_FEATURES.index("spending_consistency")] == 0
    assert row[STATE_FEATURES.index("budget_adherence_score")] == 1


def test_free_debits_count_without_moving_money() -> None:
    """A debit of nothing counts as a debit and moves no money."""
    row = state_features(folded([transaction(AS_OF, 0)]), AS_OF)
    assert np.isfinite(row).all()
    assert row[STATE_FEATURES.index("weekday_spending_ratio")] == 0
    assert row[STATE_FEATURES.index("category_diversity")] == pytest.approx(1 / 11)


def test_median_of_an_even_number_is_between_the_two() -> None:
    """The median of 10, 20, 30, 60 is 25, so only the 60 is large: it is above 50."""
    state = folded([transaction(AS_OF, amount) for amount in (10, 20, 30, 60)])
    assert feature(state, "large_transaction_ratio") == pytest.approx(1 / 4)


def test_zone_of_the_request_does_not_matter() -> None:
    """The same moment gives the same features in every zone."""
    state = folded(HISTORY)
    elsewhere = AS_OF.astimezone(dt.timezone(dt.timedelta(hours=9)))
    assert np.array_equal(state_features(state, AS_OF), state_features(state, elsewhere))
