"""Statistics merge, whatever the order."""

from __future__ import annotations

import uuid
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import (
    MOST_CATEGORIES,
    MOST_HEAVY_USERS,
    MOST_SOURCES,
    OTHER_CATEGORIES,
    OTHER_SOURCES,
    ZERO_BUCKET,
    DatasetStatistics,
    bounded_categories,
    bounded_heaviest,
    bounded_sources,
    distinct,
    excess,
    histogram,
    merged,
    quantiles,
    size,
    user_sketch,
)
from schemas.messages.progress import DatasetCounts

COUNTS = st.builds(DatasetCounts, **{name: st.integers(0, 1_000) for name in DatasetCounts.__struct_fields__})
HISTOGRAMS = st.lists(st.floats(0, 1e12), min_size=1, max_size=8).map(histogram)
STATISTICS = st.builds(
    DatasetStatistics,
    counts=COUNTS,
    fresh=st.integers(0, 1_000),
    categories=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 50)),
    heaviest=st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(1, 50), max_size=8),
    tiers=st.dictionaries(st.integers(0, 9), st.integers(1, 50)),
    filled=st.dictionaries(st.sampled_from("xyz"), st.integers(1, 50)),
    users=st.sets(st.integers(0, 2**128 - 1), max_size=8).map(user_sketch),
    ages=st.dictionaries(st.sampled_from("pqr"), HISTOGRAMS),
    values=st.dictionaries(st.sampled_from("uvw"), HISTOGRAMS),
)


def exact(statistics: DatasetStatistics) -> tuple[object, ...]:
    """Return all that is independent of the order of merging."""
    users = round(distinct(statistics.users))
    return (users, *(getattr(statistics, name) for name in statistics.__struct_fields__ if name != "users"))


@given(STATISTICS, STATISTICS, STATISTICS)
def test_merging_is_associative_and_commutative(
    one: DatasetStatistics, two: DatasetStatistics, three: DatasetStatistics
) -> None:
    """The same panes give the same data set in any order and grouping."""
    assert exact(merged(merged(one, two), three)) == exact(merged(one, merged(two, three)))
    assert exact(merged(one, two)) == exact(merged(two, one))


@given(STATISTICS)
def test_nothing_changes_nothing(statistics: DatasetStatistics) -> None:
    """An empty pane changes nothing."""
    assert exact(merged(statistics, DatasetStatistics())) == exact(statistics)


def test_categories_are_bounded_and_none_is_lost() -> None:
    """The number of categories is bounded, and every category counts in the sum."""
    many = {f"category-{number}": number + 1 for number in range(MOST_CATEGORIES + 40)}
    kept = bounded_categories(many)
    assert len(kept) == MOST_CATEGORIES
    assert sum(kept.values()) == sum(many.values())
    assert kept[OTHER_CATEGORIES] == sum(range(1, 42))
    assert bounded_categories(kept) == kept


@given(st.lists(st.lists(st.integers(0, 2_000), max_size=300), max_size=30), st.integers(0, 3_000))
def test_the_heaviest_users_are_found_within_the_bound(panes: list[list[int]], bot: int) -> None:
    """The heaviest users are found within the bound, and an honest one is not blamed."""
    panes = [*panes, [5_000] * bot]
    heaviest: dict[bytes, int] = {}
    for pane in panes:
        counts = Counter(heaviest) + Counter(bounded_heaviest(Counter(n.to_bytes(16) for n in pane)))
        heaviest = bounded_heaviest(counts)
    exactly = Counter(n for pane in panes for n in pane)
    total = exactly.total()
    assert len(heaviest) <= MOST_HEAVY_USERS
    for user, count in exactly.items():
        kept = heaviest.get(user.to_bytes(16), 0)
        assert count - total / (MOST_HEAVY_USERS + 1) <= kept <= count


def test_heaviest_users_are_exact_below_the_bound_and_bounded_above() -> None:
    """The heaviest users are exact below the bound, and their number is bounded above it."""
    few = {n.to_bytes(16): n + 1 for n in range(MOST_HEAVY_USERS)}
    assert bounded_heaviest(few) == few
    many = {n.to_bytes(16): 1 for n in range(MOST_HEAVY_USERS + 1)} | {b"bot": 50, b"fan": 2}
    assert bounded_heaviest(many) == {b"bot": 49, b"fan": 1}


@given(st.dictionaries(st.binary(max_size=2), st.integers(1, 100)), st.integers(0, 100))
def test_the_excess_is_what_lies_beyond_the_cap(heaviest: dict[bytes, int], cap: int) -> None:
    """The excess of a user is what lies beyond the cap."""
    assert excess(heaviest, cap) == sum(max(0, count - cap) for count in heaviest.values())


def test_distinct_users_are_estimated_within_the_error() -> None:
    """Distinct users are estimated within the error."""
    assert distinct(user_sketch(uuid.uuid5(uuid.NAMESPACE_OID, str(n)).int for n in range(5_000))) == pytest.approx(
        5_000, rel=0.07
    )
    assert distinct(b"") == 0
    assert user_sketch([]) == b""


def test_sources_are_bounded_and_no_age_is_lost() -> None:
    """The number of sources is bounded, and every age counts."""
    many = {f"source-{number}": histogram([float(number)] * (number + 1)) for number in range(MOST_SOURCES + 9)}
    kept = bounded_sources(many)
    assert len(kept) == MOST_SOURCES
    assert sum(map(size, kept.values())) == sum(map(size, many.values()))
    assert size(kept[OTHER_SOURCES]) == sum(range(1, 11))
    assert bounded_sources(kept) == kept


@given(st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_lie_within_half_a_bucket(values: list[float], rank: float) -> None:
    """A quantile lies within half a bucket of the exact one."""
    (found,) = quantiles(histogram(values), (rank,))
    exact = float(np.quantile(values, rank, method="inverted_cdf"))
    assert found == pytest.approx(exact, rel=0.05)


def test_a_histogram_knows_how_many_there_are() -> None:
    """A histogram counts its values exactly, zeros too."""
    values = histogram([0.0, 0.0, *map(float, range(1, 10_000))])
    assert (size(values), values[ZERO_BUCKET]) == (10_001, 2)
    assert quantiles(values, (0.0, 0.5)) == [0.0, pytest.approx(5_000, rel=0.05)]
    assert (size({}), quantiles({}, (0.5,)), histogram([])) == (0, [], {})
