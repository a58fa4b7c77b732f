"""Drift of data sets."""

from __future__ import annotations

import numpy as np
import pytest

from modelkit.statistics.sketches import DatasetStatistics, histogram
from streams.epochs.drift import population_stability


def amounts(number: int, *, seed: int, factor: float = 1.0) -> DatasetStatistics:
    """Return statistics of heavy-tailed amounts."""
    drawn = np.random.default_rng(seed).lognormal(7.0, 1.0, number) * factor
    return DatasetStatistics(values={"amount_minor": histogram([float(value) for value in drawn])})


@pytest.mark.parametrize("number", [60, 200, 1_000, 20_000])
def test_the_same_source_does_not_drift(number: int) -> None:
    """Samples of the same source show no drift, whatever their size."""
    found = [population_stability(amounts(number, seed=seed), amounts(number, seed=seed + 500)) for seed in range(40)]
    assert sum(value > 0.1 for value in found if value is not None) <= 2


@pytest.mark.parametrize(("number", "factor"), [(300, 2.0), (5_000, 1.5), (20_000, 0.6)])
def test_another_source_does(number: int, factor: float) -> None:
    """Samples of a shifted source show drift."""
    moved = population_stability(amounts(5_000, seed=1), amounts(number, seed=2, factor=factor))
    assert moved is not None
    assert moved > 0.08


def test_categories_stand_in_where_there_are_no_values() -> None:
    """Without values, drift is measured on categories."""
    earlier = DatasetStatistics(categories={"click": 500, "dismiss": 500, "helpful": 3})
    same = DatasetStatistics(categories={"click": 260, "dismiss": 240})
    other = DatasetStatistics(categories={"click": 50, "dismiss": 450, "unheard": 200})
    assert population_stability(earlier, same) == 0
    assert (population_stability(earlier, other) or 0) > 0.5


def test_too_little_says_nothing() -> None:
    """With too few samples drift is unknown."""
    assert population_stability(amounts(5_000, seed=1), amounts(10, seed=2)) is None
    assert population_stability(DatasetStatistics(), DatasetStatistics()) is None
