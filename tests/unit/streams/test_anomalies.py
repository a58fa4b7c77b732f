"""Which values are called anomalous."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import BUCKETS_PER_DOUBLING, histogram
from streams.quality.anomalies import anomalies, usual_buckets


def heavy_tailed(count: int, spread: float = 1.2) -> list[float]:
    """Return amounts as people pay them: a few are hundreds of times the usual one."""
    return list(np.random.default_rng(3).lognormal(8.0, spread, count))


def test_honest_large_amounts_are_not_blamed() -> None:
    """Every rich customer would lower the quality of the data."""
    assert anomalies(histogram(heavy_tailed(20_000))) == 0
    assert anomalies(histogram([999.0] * 900 + [9_999.0] * 100)) == 0


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_wild_amounts_are_counted(rate: float, factor: float) -> None:
    """Amounts in the wrong unit would pass, the more the less they are noticed."""
    values = heavy_tailed(10_000)
    planted = round(rate * len(values))
    values[:planted] = [value * factor for value in values[:planted]]
    assert anomalies(histogram(values)) == pytest.approx(planted, abs=5)


@pytest.mark.parametrize("spread", [3.0, 6.0])
def test_usual_values_reach_six_standard_deviations_from_the_median(spread: float) -> None:
    """The interquartile range is that of a normal distribution, so the reach on a lognormal one is known."""
    low, high = usual_buckets(histogram(heavy_tailed(20_000, spread)))
    deviation = spread / math.log(2) * BUCKETS_PER_DOUBLING
    assert (high - low) / 2 == pytest.approx(6 * deviation, rel=0.04)


def test_where_values_hardly_differ_another_one_is_usual_up_to_six_doublings() -> None:
    """A subscription whose price doubles is no anomaly; one that is 65 times as high is."""
    values = [1_000.0] * 100
    assert anomalies(histogram([*values, 1_000.0 * 63, 1_000.0 / 63])) == 0
    assert anomalies(histogram([*values, 1_000.0 * 70, 1_000.0 / 70])) == 2


@given(st.lists(st.floats(0, 1e12), max_size=50))
def test_the_count_stays_within_the_data(values: list[float]) -> None:
    """More than everything, or less than nothing, would be anomalous; or nought."""
    assert 0 <= anomalies(histogram(values)) <= sum(value > 0 for value in values) / 2
