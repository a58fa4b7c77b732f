"""Anomalous values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import BUCKETS_PER_DOUBLING, histogram
from streams.quality.anomalies import anomalies, usual_buckets


def heavy_tailed(count: int, spread: float = 1.2) -> list[float]:
    """Return realistic amounts: a few are hundreds of times the usual one."""
    return list(np.random.default_rng(3).lognormal(8.0, spread, count))


def test_honest_large_amounts_are_not_blamed() -> None:
    """Honest large amounts are not anomalous."""
    assert anomalies(histogram(heavy_tailed(20_000))) == 0
    assert anomalies(histogram([999.0] * 900 + [9_999.0] * 100)) == 0


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_wild_amounts_are_counted(rate: float, factor: float) -> None:
    """Amounts in the wrong unit are counted at any rate up to a fifth."""
    values = heavy_tailed(10_000)
    planted = round(rate * len(values))
    values[:planted] = [value * factor for value in values[:planted]]
    assert anomalies(histogram(values)) == pytest.approx(planted, abs=5)


@pytest.mark.parametrize("spread", [3.0, 6.0])
def test_usual_values_reach_six_standard_deviations_from_the_median(spread: float) -> None:
    """On lognormal values the usual range reaches six standard deviations from the median."""
    low, high = usual_buckets(histogram(heavy_tailed(20_000, spread)))
    deviation = spread / math.log(2) * BUCKETS_PER_DOUBLING
    assert (high - low) / 2 == pytest.approx(6 * deviation, rel=0.04)


def test_where_values_hardly_differ_another_one_is_usual_up_to_six_doublings() -> None:
    """Among equal values another one is anomalous only beyond a factor of 64."""
    values = [1_000.0] * 100
    assert anomalies(histogram([*values, 1_000.0 * 63, 1_000.0 / 63])) == 0
    assert anomalies(histogram([*values, 1_000.0 * 70, 1_000.0 / 70])) == 2


@given(st.lists(st.floats(0, 1e12), max_size=50))
def test_the_count_stays_within_the_data(values: list[float]) -> None:
    """The number of anomalies is at most half of the positive values."""
    assert 0 <= anomalies(histogram(values)) <= sum(value > 0 for value in values) / 2
