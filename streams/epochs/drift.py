"""How far a data set has moved from earlier ones: the population stability index. Pure.

The bins of the index (:mod:`modelkit.statistics.stability`) are tenths of the earlier values if both sides have values, else
categories; an empty bin counts as half a sample. Two samples of the same source differ by about (bins - 1) * (1/n + 1/m) by
chance. That expectation plus two standard deviations is subtracted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from modelkit.statistics.sketches import DatasetStatistics, Histogram, quantile_buckets, size
from modelkit.statistics.stability import stability_index

TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
FEWEST_SAMPLES = 50  # of either side; with fewer, chance dominates
FEWEST_IN_BIN = 5


def population_stability(earlier: DatasetStatistics, new: DatasetStatistics) -> float | None:
    """Return the PSI of ``new`` against ``earlier`` beyond chance, at least 0; None if there is too little to compare."""
    sizes = size(earlier.amounts), size(new.amounts)
    if min(sizes) >= FEWEST_SAMPLES:
        edges = sorted(set(quantile_buckets(earlier.amounts, TENTHS)))
        shares = [_shares(statistics.amounts, edges) for statistics in (earlier, new)]
        return _beyond_chance(shares[0], shares[1], sizes)
    sizes = sum(earlier.categories.values()), sum(new.categories.values())
    if min(sizes) < FEWEST_SAMPLES:
        return None
    groups = _groups(earlier.categories)
    return _beyond_chance(_grouped(earlier.categories, groups), _grouped(new.categories, groups), sizes)


def _beyond_chance(earlier: Sequence[float], new: Sequence[float], sizes: tuple[int, int]) -> float:
    freedom, scale = len(earlier) - 1, 1 / sizes[0] + 1 / sizes[1]
    chance = (freedom + 2 * math.sqrt(2 * freedom)) * scale
    half_a_sample = (0.5 / sizes[0], 0.5 / sizes[1])
    return max(stability_index(earlier, new, least=half_a_sample) - chance, 0.0)


def _shares(values: Histogram, edges: Sequence[int]) -> list[float]:
    counts = [0] * (len(edges) + 1)
    for bucket, count in values.items():
        counts[bisect_left(edges, bucket)] += count
    total = sum(counts)
    return [count / total for count in counts]


def _groups(categories: Mapping[str, int]) -> list[str]:
    return sorted(name for name, count in categories.items() if count >= FEWEST_IN_BIN)


def _grouped(categories: Mapping[str, int], groups: Sequence[str]) -> list[float]:
    total = sum(categories.values())
    shares = [categories.get(name, 0) / total for name in groups]
    return [*shares, max(1.0 - sum(shares), 0.0)]
