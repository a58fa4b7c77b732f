"""What a policy would have earned on recommendations that another one served: own off-policy estimators. Pure numpy.

Notation: ``policy`` (n, k) are the judged policy's probabilities on each logged context, ``values`` (n, k) a model's
expected rewards, and a :class:`Log` holds what was served: the action, the exact probability it had, and the reward.
Every estimate is the mean of terms, one a row, so that intervals may draw users instead of rows. Overview: Dudik, Erhan,
Langford and Li (2014), "Doubly robust policy evaluation and optimization".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HEAVY_WEIGHT = 10.0
RIDGE = 10.0
_SHRINKAGES = (*np.geomspace(1.0, 1e5, 21).tolist(), float("inf"))


class Log(NamedTuple):
    """What was served: ``actions`` (n,), the ``propensities`` (n,) they had, and the ``rewards`` (n,) that came."""

    actions: IntArray
    propensities: FloatArray
    rewards: FloatArray

    def only(self, rows: npt.NDArray[np.bool_] | IntArray) -> Log:
        """Return some rows."""
        return Log(self.actions[rows], self.propensities[rows], self.rewards[rows])


class RewardModel:
    """Ridge regression of the reward per action: what a context (n, d) is expected to earn under each of k actions.

    The intercept is not shrunk; an action that was never served is expected to earn the mean of all.
    """

    def __init__(self, contexts: npt.NDArray[np.floating], log: Log, *, actions: int, ridge: float = RIDGE) -> None:
        rows = np.asarray(contexts, dtype=np.float64)
        self._center, spread = rows.mean(axis=0), rows.std(axis=0)
        self._spread = np.where(spread > 1e-9, spread, 1.0)  # noqa: PLR2004 - a column that does not vary
        standard = self._standard(rows)
        overall = float(log.rewards.mean())
        self._weights = np.zeros((rows.shape[1], actions))
        self._means = np.full(actions, overall)
        for action in range(actions):
            taken = log.actions == action
            if taken.any():
                self._fit(action, standard[taken], log.rewards[taken], ridge)

    def _fit(self, action: int, rows: FloatArray, rewards: FloatArray, ridge: float) -> None:  # noqa: PLR0917 - X, y and their place
        center, mean = rows.mean(axis=0), float(rewards.mean())
        moved = rows - center
        weights = np.linalg.solve(moved.T @ moved + ridge * np.eye(rows.shape[1]), moved.T @ (rewards - mean))
        self._weights[:, action] = weights
        self._means[action] = mean - float(center @ weights)

    def _standard(self, rows: FloatArray) -> FloatArray:
        return np.asarray((rows - self._center) / self._spread)

    def values(self, contexts: npt.NDArray[np.floating]) -> FloatArray:
        """Return the expected rewards, shape (n, k)."""
        return np.asarray(self._standard(np.asarray(contexts, dtype=np.float64)) @ self._weights + self._means)


def importance_weights(policy: FloatArray, log: Log) -> FloatArray:
    """Return for each row how much more often the judged policy would have chosen the served action, (n,).

    Raises:
        ValueError: when a served action has no positive propensity.
    """
    if not np.all(log.propensities > 0.0):
        raise ValueError("a served action must have had a positive propensity")
    return np.asarray(policy[np.arange(len(log.actions)), log.actions] / log.propensities)


def snips(policy: FloatArray, log: Log, rewards: FloatArray | None = None) -> float:
    """Return the self-normalised estimate (Swaminathan and Joachims 2015); of ``rewards`` (n,) in place of the log's where given."""
    weights = importance_weights(policy, log)
    total = float(weights.sum())
    return float(weights @ (log.rewards if rewards is None else rewards)) / total if total > 0.0 else float("nan")


def dm_terms(policy: FloatArray, values: FloatArray) -> FloatArray:
    """Return the terms of the direct method, (n,): the model's own estimate, biased as the model is."""
    return np.asarray((policy * values).sum(axis=1))


def dr_terms(policy: FloatArray, log: Log, values: FloatArray) -> FloatArray:
    """Return the doubly robust terms, (n,): the model, corrected by what it got wrong on the served actions.

    Unbiased when the propensities are exact and the model has not seen these rows.
    """
    return _corrected(policy, log, values, weights=importance_weights(policy, log))


def dros_terms(policy: FloatArray, log: Log, values: FloatArray) -> FloatArray:
    """Return doubly robust terms with optimistic shrinkage, (n,): Su, Dimakopoulou, Krishnamurthy and Dudik (2020).

    A weight ``w`` becomes ``lam w / (w^2 + lam)``; ``lam`` is the one of a grid with the smallest estimated squared
    error: the square of the bias that shrinking brings, and the variance.
    """
    weights = importance_weights(policy, log)
    residuals = log.rewards - values[np.arange(len(log.actions)), log.actions]
    best, smallest = np.empty(0), float("inf")
    for shrinkage in _SHRINKAGES:
        shrunk = weights if np.isinf(shrinkage) else shrinkage * weights / (weights**2 + shrinkage)
        terms = _corrected(policy, log, values, weights=shrunk)
        error = float(np.mean((shrunk - weights) * residuals)) ** 2 + float(np.var(terms)) / len(terms)
        if error < smallest:
            best, smallest = terms, error
    return best


def _corrected(policy: FloatArray, log: Log, values: FloatArray, *, weights: FloatArray) -> FloatArray:
    residuals = log.rewards - values[np.arange(len(log.actions)), log.actions]
    return np.asarray(dm_terms(policy, values) + weights * residuals)


def effective_sample_size(weights: FloatArray) -> float:
    """Return how many rows of equal weight would carry as much information: (Σw)² / Σw² (Kish 1965)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0


def clipped_mass(weights: FloatArray, *, limit: float = HEAVY_WEIGHT) -> float:
    """Return the share of all weight that a clip at ``limit`` would cut off: how much rests on few rows."""
    total = float(weights.sum())
    return float(np.maximum(weights - limit, 0.0).sum()) / total if total > 0.0 else 0.0


def estimates(policy: FloatArray, log: Log, values: FloatArray) -> dict[str, float]:
    """Return the value of a policy by all five estimators, and how well the log supports it."""
    weights = importance_weights(policy, log)
    return {
        "ips": float(np.mean(weights * log.rewards)),
        "snips": snips(policy, log),
        "dm": float(np.mean(dm_terms(policy, values))),
        "dr": float(np.mean(dr_terms(policy, log, values))),
        "dros": float(np.mean(dros_terms(policy, log, values))),
        "effective_samples": effective_sample_size(weights),
        "clipped_mass": clipped_mass(weights),
    }


def constant_policy(action: int, *, rows: int, actions: int, floor: float = 0.0) -> FloatArray:
    """Return the policy that prefers one action everywhere, (rows, actions); every action keeps ``floor``."""
    policy = np.full((rows, actions), floor)
    policy[:, action] += 1.0 - floor * actions
    return policy


def uniform_policy(*, rows: int, actions: int) -> FloatArray:
    """Return the policy that gives all actions the same probability, (rows, actions)."""
    return np.full((rows, actions), 1.0 / actions)


def best_single_action(log: Log, *, actions: int) -> int:
    """Return the action with the highest self-normalised reward in ``log``; the first of equals, unserved ones come last."""
    rewards = [snips(constant_policy(action, rows=len(log.actions), actions=actions), log) for action in range(actions)]
    return int(np.argmax(np.nan_to_num(np.array(rewards), nan=-np.inf)))
