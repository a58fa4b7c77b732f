"""Linear bandits on sufficient statistics, and the policy that turns values into exact propensities. Pure.

LinUCB: Li et al. 2010, "A contextual-bandit approach to personalized news article recommendation", algorithm 1.
Linear Thompson sampling: Agrawal and Goyal 2013. Per arm A is the sum of x xᵀ and b that of reward · x; the ridge is added
when solving, so that statistics merge by addition. Randomness is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How values become probabilities: ``softmax`` at a temperature, ``epsilon_greedy``, or ``uniform``."""

    kind: Literal["softmax", "epsilon_greedy", "uniform"] = "softmax"
    temperature: float = 1.0
    epsilon: float = 0.1


def propensities(values: npt.NDArray[np.floating], policy: Policy, *, floor: float) -> DoubleArray:
    """Return the probability of each action for rows of values (n, k), shape (n, k): rows sum to 1, nothing is below ``floor``.

    Every arm gets the floor; the policy shares out the rest.

    Raises:
        ValueError: when k floors are more than 1.
    """
    scores = np.asarray(values, dtype=np.float64)
    arms = scores.shape[1]
    if not 0.0 <= floor * arms <= 1.0:
        message = f"{arms} actions cannot each keep a propensity of {floor}"
        raise ValueError(message)
    chances: DoubleArray = floor + (1.0 - floor * arms) * _shares(scores, policy)
    return chances


def _shares(scores: DoubleArray, policy: Policy) -> DoubleArray:
    arms = scores.shape[1]
    if policy.kind == "uniform":
        return np.full_like(scores, 1.0 / arms)
    if policy.kind == "softmax":
        powers: DoubleArray = np.exp((scores - scores.max(axis=1, keepdims=True)) / policy.temperature)
        shares: DoubleArray = powers / powers.sum(axis=1, keepdims=True)
        return shares
    shares = np.full_like(scores, policy.epsilon / arms)
    shares[np.arange(len(scores)), scores.argmax(axis=1)] += 1.0 - policy.epsilon
    return shares


def draw(probabilities: npt.NDArray[np.floating] | list[float], randomness: float) -> int:
    """Return the action that ``randomness`` in [0, 1) falls on."""
    reached = 0.0
    for action, probability in enumerate(probabilities):
        reached += float(probability)
        if randomness < reached:
            return action
    return len(probabilities) - 1


@dataclass(frozen=True)
class Statistics:
    """Sufficient statistics of k arms over d features: ``A`` (k, d, d) without ridge, ``b`` (k, d)."""

    A: DoubleArray
    b: DoubleArray

    @classmethod
    def empty(cls, arms: int, width: int) -> Statistics:
        """Return the statistics of no data."""
        return cls(np.zeros((arms, width, width)), np.zeros((arms, width)))

    def updated(
        self, rows: npt.NDArray[np.floating], actions: npt.NDArray[np.integer], rewards: npt.NDArray[np.floating]
    ) -> Statistics:
        """Return the statistics after rows (n, d), their actions (n,) and rewards (n,)."""
        A, b = self.A.copy(), self.b.copy()
        for arm in range(len(A)):
            taken = np.asarray(rows[actions == arm], dtype=np.float64)
            A[arm] += taken.T @ taken
            b[arm] += taken.T @ np.asarray(rewards[actions == arm], dtype=np.float64)
        return Statistics(A, b)

    def merged(self, other: Statistics) -> Statistics:
        """Return the statistics of both."""
        return Statistics(self.A + other.A, self.b + other.b)


class LinearValues:
    """Solved statistics: values of rows in a few microseconds."""

    def __init__(self, statistics: Statistics, *, ridge: float = 1.0) -> None:
        width = statistics.b.shape[1]
        self._inverses: DoubleArray = np.asarray(np.linalg.inv(statistics.A + ridge * np.eye(width)), dtype=np.float64)
        self._weights: DoubleArray = np.einsum("kij,kj->ki", self._inverses, statistics.b)

    def means(self, rows: npt.NDArray[np.floating]) -> DoubleArray:
        """Return the expected reward of each arm for rows (n, d), shape (n, k)."""
        return np.asarray(rows, dtype=np.float64) @ self._weights.T

    def deviations(self, rows: npt.NDArray[np.floating]) -> DoubleArray:
        """Return the width of each expectation, sqrt(xᵀ A⁻¹ x), shape (n, k)."""
        exact = np.asarray(rows, dtype=np.float64)
        widths: DoubleArray = np.sqrt(np.maximum(np.einsum("ni,kij,nj->nk", exact, self._inverses, exact), 0.0))
        return widths

    def upper_bounds(self, rows: npt.NDArray[np.floating], *, alpha: float) -> DoubleArray:
        """Return LinUCB's values: mean + alpha · width, shape (n, k)."""
        return self.means(rows) + alpha * self.deviations(rows)

    def sampled(
        self, rows: npt.NDArray[np.floating], generator: np.random.Generator, *, scale: float = 1.0
    ) -> DoubleArray:
        """Return one Thompson sample of the values per row and arm, shape (n, k).

        The marginal of xᵀθ under θ ~ N(mean, scale² A⁻¹) is normal, so it is drawn directly.
        """
        means = self.means(rows)
        return means + scale * self.deviations(rows) * generator.standard_normal(means.shape)
