"""Off-policy estimators: against hand-made figures, against worlds whose truth is known, and against real logs."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.bandit import Policy, propensities
from modelkit.training.off_policy import (
    Log,
    RewardModel,
    best_single_action,
    clipped_mass,
    constant_policy,
    dm_terms,
    dr_terms,
    dros_terms,
    effective_sample_size,
    estimates,
    importance_weights,
    snips,
    uniform_policy,
)
from tests.small_sets import REAL, needs_real_sets

FloatArray = npt.NDArray[np.float64]

ACTIONS = 4
ITEMS = 34


class World:
    """Contexts of two columns, a linear reward per action and a logging policy that prefers what earns little."""

    def __init__(self, seed: int, rows: int) -> None:
        self._generator = np.random.default_rng(seed)
        self.contexts = self._generator.normal(0, 1, (rows, 2))
        slopes = np.array([[1.0, -1.0, 0.5, 0.0], [0.0, 0.5, -0.5, 1.0]])
        self.means: FloatArray = self.contexts @ slopes + np.array([0.0, 0.2, 0.4, 0.1])
        self.logging = propensities(-self.means, Policy(temperature=1.0), floor=0.05)
        self.policy = propensities(self.means, Policy(temperature=0.3), floor=0.02)

    @property
    def truth(self) -> float:
        """What the judged policy earns on these contexts."""
        return float((self.policy * self.means).sum(axis=1).mean())

    def log(self) -> Log:
        """Serve every context once more."""
        drawn = (self._generator.random((len(self.means), 1)) > np.cumsum(self.logging, axis=1)).sum(axis=1)
        actions = np.minimum(drawn, ACTIONS - 1)
        rows = np.arange(len(actions))
        rewards = self.means[rows, actions] + self._generator.normal(0, 0.5, len(actions))
        return Log(actions, self.logging[rows, actions], rewards)


def by_hand() -> tuple[FloatArray, Log, FloatArray]:
    """Return a policy, two served rows and a model, small enough for pencil and paper."""
    policy = np.array([[0.5, 0.5], [0.25, 0.75]])
    log = Log(np.array([0, 1]), np.array([0.25, 0.5]), np.array([1.0, 2.0]))
    return policy, log, np.array([[1.0, 3.0], [2.0, 1.0]])


def test_terms_equal_those_of_pencil_and_paper() -> None:
    """The terms equal those computed by hand."""
    policy, log, values = by_hand()
    np.testing.assert_allclose(importance_weights(policy, log), [2.0, 1.5])
    assert estimates(policy, log, values)["ips"] == pytest.approx((2.0 + 3.0) / 2)
    np.testing.assert_allclose(dm_terms(policy, values), [2.0, 1.25])
    np.testing.assert_allclose(dr_terms(policy, log, values), [2.0 + 2.0 * 0.0, 1.25 + 1.5 * 1.0])
    assert snips(policy, log) == pytest.approx(5.0 / 3.5)


def test_weighted_estimators_are_unbiased_under_a_policy_that_was_not_served() -> None:
    """The weighted estimators find what an unserved policy earns."""
    world = World(seed=1, rows=400)
    wrong = np.zeros_like(world.means) + 0.7
    estimated = np.array([
        (found["ips"], found["dr"])
        for found in (estimates(world.policy, world.log(), wrong) for _ in range(300))
    ])  # fmt: skip
    deviations = (estimated.mean(axis=0) - world.truth) / (estimated.std(axis=0) / np.sqrt(len(estimated)))
    assert np.all(np.abs(deviations) < 4.0)
    assert abs(float(np.mean(world.log().rewards)) - world.truth) > 0.3  # the log itself says something else


def test_direct_method_follows_its_model_into_error_and_the_robust_one_does_not() -> None:
    """A biased model misleads the direct method and not the doubly robust one."""
    world = World(seed=2, rows=20_000)
    log = world.log()
    wrong = world.means[:, ::-1]
    assert abs(float(dm_terms(world.policy, wrong).mean()) - world.truth) > 0.3
    assert float(dr_terms(world.policy, log, wrong).mean()) == pytest.approx(world.truth, abs=0.1)


def test_good_model_makes_the_robust_estimate_narrower_than_weights_alone() -> None:
    """A good reward model narrows the estimate."""
    world = World(seed=3, rows=4_000)
    first, second = world.log(), world.log()
    values = RewardModel(world.contexts, first, actions=ACTIONS).values(world.contexts)
    robust = dr_terms(world.policy, second, values)
    weighted = importance_weights(world.policy, second) * second.rewards
    assert float(np.std(robust)) < 0.8 * float(np.std(weighted))
    assert float(robust.mean()) == pytest.approx(world.truth, abs=0.1)


def test_shrinkage_trades_a_little_bias_for_less_variance_under_heavy_weights() -> None:
    """Under heavy weights shrinkage trades a little bias for less variance."""
    errors = []
    for seed in range(40):
        world = World(seed=seed, rows=300)
        log = world.log()
        rare = Log(log.actions, log.propensities / np.where(log.actions == 0, 40.0, 1.0), log.rewards)
        values = np.zeros_like(world.means)
        policy = constant_policy(0, rows=300, actions=ACTIONS)
        thin = np.random.default_rng(seed).random(300) < 1 / 40
        rare = rare.only(np.flatnonzero(thin | (log.actions != 0)))
        kept = np.flatnonzero(thin | (log.actions != 0))
        errors.append(
            (dr_terms(policy[kept], rare, values[kept]).var(), dros_terms(policy[kept], rare, values[kept]).var())
        )
    robust, shrunk = np.mean(errors, axis=0)
    assert shrunk < 0.5 * robust


def test_shrinkage_leaves_even_weights_alone() -> None:
    """Even weights are not shrunk."""
    world = World(seed=5, rows=5_000)
    drawn = np.random.default_rng(5).integers(0, ACTIONS, 5_000)
    log = Log(drawn, np.full(5_000, 1 / ACTIONS), world.means[np.arange(5_000), drawn])
    everything = uniform_policy(rows=5_000, actions=ACTIONS)
    shrunk, robust = dros_terms(everything, log, world.means), dr_terms(everything, log, world.means)
    assert float(shrunk.mean()) == pytest.approx(float(robust.mean()), abs=1e-3)


@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=40))
def test_effective_samples_lie_between_none_and_all(weights: list[float]) -> None:
    """Effective samples are more than none and at most all."""
    found = np.array(weights)
    assert 0.0 <= effective_sample_size(found) <= len(weights) + 1e-6
    assert 0.0 <= clipped_mass(found) <= 1.0


def test_effective_samples_and_clipped_mass_of_known_weights() -> None:
    """Known weights give the effective samples and the clipped mass of the formulas."""
    assert effective_sample_size(np.ones(50)) == pytest.approx(50.0)
    assert effective_sample_size(np.array([100.0, *[0.0] * 49])) == pytest.approx(1.0)
    assert clipped_mass(np.array([30.0, 10.0])) == pytest.approx(0.5)


def test_action_that_could_not_have_been_served_is_refused() -> None:
    """A served action without a positive propensity is refused."""
    policy, log, _ = by_hand()
    with pytest.raises(ValueError, match="positive propensity"):
        importance_weights(policy, log._replace(propensities=np.array([0.0, 0.5])))


def test_reward_model_recovers_rewards_and_leaves_unserved_actions_at_the_mean() -> None:
    """The reward model recovers rewards and expects the mean of an unserved action."""
    world = World(seed=7, rows=4_000)
    log = world.log()
    seen = np.flatnonzero(log.actions != 3)
    model = RewardModel(world.contexts[seen], log.only(seen), actions=ACTIONS)
    values = model.values(world.contexts)
    np.testing.assert_allclose(values[:, :3], world.means[:, :3], atol=0.25)
    np.testing.assert_allclose(values[:, 3], float(log.rewards[seen].mean()))


def test_best_single_action_is_the_one_that_earns_most_not_the_one_shown_most() -> None:
    """The best single action is the one that earns most."""
    actions = np.array([0] * 90 + [1] * 10)
    log = Log(actions, np.where(actions == 0, 0.9, 0.1), np.where(actions == 0, 0.1, 0.3))
    assert best_single_action(log, actions=3) == 1


def test_constant_policy_keeps_the_floor_of_every_action() -> None:
    """A constant policy keeps the floor of every action."""
    policy = constant_policy(2, rows=2, actions=5, floor=0.02)
    np.testing.assert_allclose(policy, [[0.02, 0.02, 0.92, 0.02, 0.02]] * 2)


class Impressions:
    """A log of Open Bandit: item, position, click, propensity, and context as ones and zeros."""

    def __init__(self, name: str) -> None:
        with gzip.open(REAL / "openbandit" / f"{name}_men.csv.gz", "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.positions = np.array([int(row["position"]) for row in rows])
        self.log = Log(
            np.array([int(row["item_id"]) for row in rows]),
            np.array([float(row["propensity_score"]) for row in rows]),
            np.array([float(row["click"]) for row in rows]),
        )
        self._columns = [[row[f"user_feature_{number}"] for row in rows] for number in range(4)]

    def contexts(self, others: Impressions) -> FloatArray:
        """Return position and user features in the categories of both logs."""
        parts = [self.positions[:, None] == np.array([1, 2, 3])]
        for ours, theirs in zip(self._columns, others._columns, strict=True):
            parts.append(np.array(ours)[:, None] == np.array(sorted({*ours, *theirs})))
        return np.concatenate(parts, axis=1).astype(np.float64)

    def served_shares(self) -> FloatArray:
        """Return how often each item was shown at each position, (4, items): the policy, which did not look at users."""
        shares = np.zeros((4, ITEMS))
        for position in (1, 2, 3):
            counts = np.bincount(self.log.actions[self.positions == position], minlength=ITEMS)
            shares[position] = counts / counts.sum()
        return shares


def errors_on(source: Impressions, policy: FloatArray, target: Impressions) -> dict[str, float]:
    """Return the relative error of each estimator of ``target``'s policy on ``source``'s log, cross-fitted in two halves."""
    contexts, values = source.contexts(target), np.zeros((len(source.positions), ITEMS))
    half = np.random.default_rng(0).integers(0, 2, len(values))
    for fold in (0, 1):
        seen = np.flatnonzero(half != fold)
        model = RewardModel(contexts[seen], source.log.only(seen), actions=ITEMS, ridge=100.0)
        values[half == fold] = model.values(contexts[half == fold])
    truth = float(target.log.rewards.mean())
    found = estimates(policy, source.log, values)
    return {name: abs(found[name] - truth) / truth for name in ("ips", "snips", "dm", "dr", "dros")}


@needs_real_sets
def test_real_random_log_tells_what_thompson_sampling_earned() -> None:
    """The estimators hold on real clicks; published errors are .311 (IPS), .157 (DM), .292 (DR), .160 (DRos)."""
    random, thompson = Impressions("random"), Impressions("bts")
    errors = errors_on(random, thompson.served_shares()[random.positions], thompson)
    assert all(error < 0.35 for error in errors.values()), errors


@needs_real_sets
def test_real_thompson_log_carries_the_uniform_policy_only_so_far() -> None:
    """A real log of 10,000 rows carries the uniform policy like 660 rows."""
    random, thompson = Impressions("random"), Impressions("bts")
    rows = len(thompson.positions)
    weights = importance_weights(uniform_policy(rows=rows, actions=ITEMS), thompson.log)
    assert effective_sample_size(weights) < 0.1 * rows
    assert errors_on(thompson, uniform_policy(rows=rows, actions=ITEMS), random)["snips"] < 0.5
