"""The weekly series, the row of the spending model and the trivial forecasts."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from modelkit.features import UserState, fold
from models.spending.features import FORECAST_STEPS, MAX_WEEKS, SPENDING_FEATURES, spending_features, weekly_series
from models.spending.forecasts import FORECASTS
from tests.unit.models.samples import at, transaction

AS_OF = at("2026-03-31 12:00")
DAY = dt.timedelta(days=1)


def spent(*amounts_by_days_ago: tuple[float, float]) -> UserState:
    """Return the state after debits so many days ago."""
    state: UserState | None = None
    for days_ago, amount in sorted(amounts_by_days_ago, reverse=True):
        state = fold(state, transaction(AS_OF - DAY * days_ago, amount))
    assert state is not None
    return state


def column(state: UserState | None, name: str, as_of: dt.datetime = AS_OF) -> float:
    """Return one column of the spending row by name."""
    return float(spending_features(state, as_of)[SPENDING_FEATURES.index(name)])


def test_weeks_are_complete_days_back_from_the_day_of_the_moment() -> None:
    """A series holds complete weeks; today belongs to the first forecast step."""
    state = spent((0, 1), (1, 2), (7, 4), (8, 8), (14, 16), (15, 32))
    assert weekly_series(state, AS_OF, weeks=3).tolist() == [32.0, 24.0, 6.0]


def test_the_hour_of_the_moment_does_not_matter() -> None:
    """Two requests of one day see the same series."""
    state = spent((1, 2), (8, 4))
    morning, night = at("2026-03-31 00:00"), at("2026-03-31 23:59")
    assert np.array_equal(weekly_series(state, morning), weekly_series(state, night))


def test_truth_of_a_forecast_is_the_series_four_weeks_later() -> None:
    """The truth of a forecast is the series four weeks later."""
    origin = AS_OF - DAY * 28
    state = spent((29, 100), (28, 1), (22, 2), (21, 4), (1, 8), (0, 1_000))
    truth = weekly_series(state, origin + DAY * 28, weeks=FORECAST_STEPS)
    assert truth.tolist() == [3.0, 4.0, 0.0, 8.0]
    assert weekly_series(state, origin, weeks=1).tolist() == [100.0]


def test_credits_are_no_spending() -> None:
    """Credits are no spending."""
    state = fold(None, transaction(AS_OF - DAY, 5, transaction_type="credit"))
    assert weekly_series(state, AS_OF).sum() == 0


@pytest.mark.parametrize("weeks", [0, MAX_WEEKS + 1])
def test_more_than_is_remembered_is_refused(weeks: int) -> None:
    """A series longer than the state remembers is refused."""
    with pytest.raises(ValueError, match="remembers"):
        weekly_series(None, AS_OF, weeks=weeks)


def test_all_weeks_on_offer_are_remembered() -> None:
    """The longest series on offer is remembered whole."""
    state: UserState | None = None
    for days_ago in range(7 * (MAX_WEEKS + 3), -1, -1):
        state = fold(state, transaction(AS_OF - DAY * days_ago, 1))
    assert weekly_series(state, AS_OF, weeks=MAX_WEEKS).tolist() == [7.0] * MAX_WEEKS


def test_row_derives_from_the_series() -> None:
    """Each column of the row is what its name says."""
    state = spent((1, 40), (8, 12), (36, 52))
    row = {name: column(state, name) for name in SPENDING_FEATURES}
    assert (row["week_01"], row["week_02"], row["week_06"], row["week_52"]) == (40, 12, 52, 0)
    assert (row["mean_4"], row["mean_13"], row["mean_26"], row["mean_52"]) == (13, 8, 4, 2)
    assert row["scale"] == 4
    assert row["active_share_4"] == 0.5
    assert row["active_share_26"] == pytest.approx(3 / 26)
    assert (row["month_median"], row["month_max"]) == (0, 52)
    assert row["weeks_since_active"] == 0
    assert row["weeks_observed"] == pytest.approx(36 / 7)
    assert row["share_groceries"] == 1


def test_cold_row_is_finite_and_quiet() -> None:
    """A user without history has a finite row."""
    row = spending_features(None, AS_OF)
    assert row.shape == (len(SPENDING_FEATURES),)
    assert np.isfinite(row).all()
    assert column(None, "scale") == 1
    assert column(None, "weeks_since_active") == 52


def test_season_turns_once_a_year() -> None:
    """The season is continuous at the turn of the year."""
    first, last = (column(None, "season_cos", at(day)) for day in ("2026-01-01", "2026-12-31"))
    assert first == pytest.approx(last, abs=0.001)
    assert column(None, "season_cos", at("2026-07-02")) < -0.99


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zero", [0, 0, 0, 0]),
        ("last_4_weeks", [1, 2, 3, 8]),
        ("mean_26_weeks", [14 / 26] * 4),
        ("median_of_own_months", [0] * 4),
    ],
)
def test_trivial_forecasts(name: str, expected: list[float]) -> None:
    """Each trivial forecast gives what its name says."""
    series = np.zeros((1, 52), dtype=np.float32)
    series[0, -4:] = [1, 2, 3, 8]
    assert FORECASTS[name](series)[0].tolist() == pytest.approx(expected)


def test_ewma_of_a_constant_is_the_constant() -> None:
    """The weights of the mean sum to 1."""
    series = np.full((3, 52), 7.0, dtype=np.float32)
    assert np.allclose(FORECASTS["ewma"](series), 7.0)


def test_forecast_and_row_agree_about_the_ewma() -> None:
    """The forecast and the row have the same weighted mean."""
    state = spent((1, 40), (8, 12), (36, 52), (100, 7))
    row = spending_features(state, AS_OF)[None, :]
    forecast = FORECASTS["ewma"](row[:, :52])
    assert forecast[0, 0] == pytest.approx(column(state, "ewma"), rel=1e-5)
