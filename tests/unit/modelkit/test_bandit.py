"""Linear bandits and propensities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkit.bandit import LinearValues, Policy, Statistics, draw, propensities

GENERATOR = np.random.default_rng(2)
ROWS = GENERATOR.normal(size=(200, 3))
ACTIONS = GENERATOR.integers(0, 2, size=200)
REWARDS = ROWS[:, 0] * (ACTIONS == 0) - ROWS[:, 0] * (ACTIONS == 1)

values = hnp.arrays(np.float64, (4, 5), elements=st.floats(-50, 50))
policies = st.builds(
    Policy,
    kind=st.sampled_from(["softmax", "epsilon_greedy", "uniform"]),
    temperature=st.floats(0.01, 10),
    epsilon=st.floats(0, 1),
)


@given(values, policies, st.floats(0, 0.2))
def test_propensities_are_a_distribution_above_the_floor(
    scores: np.ndarray[tuple[int, int], np.dtype[np.float64]], policy: Policy, floor: float
) -> None:
    """Propensities sum to 1, and each is at least the floor."""
    chances = propensities(scores, policy, floor=floor)
    assert np.allclose(chances.sum(axis=1), 1)
    assert (chances >= floor - 1e-12).all()


@given(values, st.sampled_from(["softmax", "epsilon_greedy"]))
def test_better_actions_are_not_less_likely(
    scores: np.ndarray[tuple[int, int], np.dtype[np.float64]], kind: str
) -> None:
    """A better action is at least as likely as a worse one."""
    chances = propensities(scores, Policy(kind=kind), floor=0.02)  # type: ignore[arg-type]
    assert (chances.max(axis=1) - chances[np.arange(4), scores.argmax(axis=1)] < 1e-12).all()


def test_floor_that_does_not_fit_is_refused() -> None:
    """A floor is refused when the floors of all actions would exceed 1."""
    with pytest.raises(ValueError, match="propensity"):
        propensities(np.zeros((1, 5)), Policy(), floor=0.21)


@pytest.mark.parametrize(("randomness", "action"), [(0.0, 0), (0.19, 0), (0.2, 1), (0.99, 2), (1.0, 2)])
def test_draw_follows_the_shares(randomness: float, action: int) -> None:
    """An action is drawn with its propensity."""
    assert draw([0.2, 0.5, 0.3], randomness) == action


def test_means_are_those_of_ridge_regression() -> None:
    """The bandit learns the expected reward."""
    solved = LinearValues(Statistics.empty(2, 3).updated(ROWS, ACTIONS, REWARDS), ridge=2.0)
    taken = ROWS[ACTIONS == 0]
    weights = np.linalg.solve(taken.T @ taken + 2.0 * np.eye(3), taken.T @ REWARDS[ACTIONS == 0])
    assert np.allclose(solved.means(ROWS)[:, 0], ROWS @ weights)


def test_batches_merge_in_any_cut() -> None:
    """Statistics of several workers add up."""
    whole = Statistics.empty(2, 3).updated(ROWS, ACTIONS, REWARDS)
    halves = [
        Statistics.empty(2, 3).updated(ROWS[part], ACTIONS[part], REWARDS[part])
        for part in (slice(0, 90), slice(90, 200))
    ]
    merged = halves[1].merged(halves[0])
    assert np.allclose(merged.A, whole.A)
    assert np.allclose(merged.b, whole.b)


def test_update_leaves_the_old_statistics_alone() -> None:
    """Fitting a candidate leaves the champion's statistics unchanged."""
    empty = Statistics.empty(2, 3)
    empty.updated(ROWS, ACTIONS, REWARDS)
    assert empty.A.sum() == 0


def test_upper_bound_explores_what_was_not_tried() -> None:
    """An arm that was never tried has the highest upper bound."""
    one_arm = Statistics.empty(2, 3).updated(ROWS, np.zeros(200, dtype=np.int64), np.zeros(200))
    bounds = LinearValues(one_arm).upper_bounds(ROWS, alpha=1.0)
    assert (bounds[:, 1] > bounds[:, 0]).all()


def test_thompson_samples_have_mean_and_width_of_the_posterior() -> None:
    """Samples have the mean and the width of the posterior."""
    solved = LinearValues(Statistics.empty(2, 3).updated(ROWS, ACTIONS, REWARDS))
    row = np.repeat(ROWS[:1], 20_000, axis=0)
    samples = solved.sampled(row, np.random.default_rng(4), scale=2.0)
    assert np.allclose(samples.mean(axis=0), solved.means(ROWS[:1])[0], atol=0.01)
    assert np.allclose(samples.std(axis=0), 2.0 * solved.deviations(ROWS[:1])[0], rtol=0.03)
