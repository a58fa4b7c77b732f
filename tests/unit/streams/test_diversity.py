"""Diversity of data sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import DatasetStatistics, user_sketch
from schemas.messages.progress import DatasetCounts
from streams.quality.diversity import diversity, evenness, largest_share, user_evenness


def given_by(*events: int, **changes: object) -> DatasetStatistics:
    """Return statistics of users who gave ``events`` each."""
    fields: dict[str, object] = {
        "counts": DatasetCounts(counted=sum(events), relevant=sum(events)),
        "heaviest": {number.to_bytes(16): count for number, count in enumerate(events) if count},
        "users": user_sketch(range(len(events))),
    }
    return DatasetStatistics(**{**fields, **changes})  # type: ignore[arg-type]


def test_many_even_users_are_diverse_and_one_bot_is_not() -> None:
    """Many even users are diverse; a data set full of one bot's events is not."""
    even, bot = diversity(given_by(*[5] * 40)), diversity(given_by(960, *[1] * 40))
    assert even == pytest.approx(1.0, abs=0.01)
    assert bot is not None
    assert bot < 0.15
    assert largest_share(given_by(960, *[1] * 40)) == pytest.approx(0.96)


def test_a_few_users_are_not_enough() -> None:
    """Few users give a low diversity."""
    assert diversity(given_by(50, 50)) == pytest.approx(0.1, abs=0.01)
    assert diversity(given_by(100)) == pytest.approx(0.05, abs=0.01)
    assert diversity(DatasetStatistics()) is None


def test_one_segment_or_category_among_many_lowers_it() -> None:
    """A dominating tier or category lowers diversity; a single one does not apply."""
    varied = diversity(given_by(*[5] * 40, tiers={1: 100, 2: 100}, categories={"a": 100, "b": 100}))
    lopsided = diversity(given_by(*[5] * 40, tiers={1: 199, 2: 1}, categories={"a": 199, "b": 1}))
    alone = diversity(given_by(*[5] * 40, tiers={1: 200}, categories={"a": 200}))
    assert varied == pytest.approx(1.0, abs=0.01)
    assert alone == pytest.approx(1.0, abs=0.01)
    assert lopsided == pytest.approx((1 + 2 * 0.045) / 3, abs=0.01)


def test_users_beyond_the_known_ones_share_the_rest() -> None:
    """Users beyond the known ones count as even."""
    statistics = given_by(*[3] * 50, counts=DatasetCounts(counted=1_050, relevant=1_050), users=user_sketch(range(350)))
    assert user_evenness(statistics) == pytest.approx(1.0, abs=0.02)


@given(st.lists(st.integers(1, 1_000), min_size=2, max_size=20))
def test_evenness_is_a_ratio(counts: list[int]) -> None:
    """Evenness lies in 0..1."""
    found = evenness(counts)
    assert found is not None
    assert 0 <= found <= 1


def test_evenness_knows_even_from_lopsided() -> None:
    """Evenness is 1 for equal counts and low for one dominating count."""
    assert evenness([7, 7, 7]) == pytest.approx(1.0)
    assert evenness([1]) is None
    assert evenness([990, 10]) == pytest.approx(-(0.99 * math.log2(0.99) + 0.01 * math.log2(0.01)))
