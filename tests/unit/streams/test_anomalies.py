"""Which values are called anomalous."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import histogram
from streams.quality.anomalies import anomalies


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


@given(st.lists(st.floats(0, 1e12), max_size=50))
def test_the_count_stays_within_the_data(values: list[float]) -> None:
    """More than everything, or less than nothing, would be anomalous; or nought."""
    assert 0 <= anomalies(histogram(values)) <= sum(value > 0 for value in values) / 2
