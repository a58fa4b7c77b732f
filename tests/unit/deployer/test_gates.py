"""The deployer's own look at the evidence."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.gates import LARGEST_MARGIN_RATIO, objection, stale_champion
from schemas.messages.training import MetricComparison

FIGURES = st.floats(0.01, 1e6)


def compared(candidate: float, *, higher_is_better: bool = True, **others: float | None) -> MetricComparison:
    """Return a comparison."""
    return MetricComparison(metric="auc", higher_is_better=higher_is_better, candidate=candidate, **others)  # type: ignore[arg-type]


@given(FIGURES, FIGURES, st.booleans())
def test_a_candidate_that_is_at_least_as_good_passes(candidate: float, other: float, higher_is_better: bool) -> None:  # noqa: FBT001 - drawn
    """A candidate that is at least as good passes."""
    better = (candidate >= other) == higher_is_better or candidate == other
    found = objection(compared(candidate, higher_is_better=higher_is_better, baseline=other, champion=other))
    if better:
        assert found is None
    elif abs(candidate - other) > LARGEST_MARGIN_RATIO * other * 1.001:
        assert found is not None


@pytest.mark.parametrize("name", ["candidate", "champion", "baseline", "lower", "upper"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_an_objection(name: str, value: float) -> None:
    """A figure that is not finite is an objection: NaN compares false with everything."""
    good = compared(0.7, champion=0.6, baseline=0.5, lower=0.0, upper=0.2)
    found = objection(msgspec.structs.replace(good, **{name: value}))
    assert found is not None
    assert "not finite" in found


def test_a_bound_far_below_the_champion_is_an_objection() -> None:
    """A lower bound far below the champion is an objection, whatever the mean."""
    found = objection(compared(0.71, champion=0.7, lower=-0.2, upper=0.3))
    assert found is not None
    assert "lower 95 % bound" in found


def test_a_candidate_compared_with_another_version_is_stale() -> None:
    """A candidate that was compared with another version is stale."""
    assert stale_champion("a" * 64, "a" * 64) is None
    assert stale_champion(None, "a" * 64) is None
    found = stale_champion("a" * 64, "b" * 64)
    assert found is not None
    assert "is served by now" in found
