"""What an answer to a recommendation is worth. Pure.

The answers to one recommendation add up, each kind once, and the sum is kept within [-1, 1]: a click and
an implementation are worth no more than the implementation. No answer within the window is "no feedback", worth 0; it is not a
dismissal. The window begins when the recommendation was seen (where no view came: with the first answer).

What was seen a moment ago has no answer *yet*: such rows are left out. A row has settled when it is as old as the delay
within which 95 % of this snapshot's answers came; waiting for the whole window would throw away its newest part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LOWEST, HIGHEST = -1.0, 1.0
SETTLED_SHARE = 0.95


def answers_within(
    responses: Sequence[str], moments: Sequence[float], *, start: float, window_seconds: float
) -> frozenset[str]:
    """Return the kinds of answers that came between ``start`` and the window's end; moments are in seconds.

    An answer that is dated before the view counts: clocks of clients differ, and an answer proves that it was seen.
    """
    return frozenset(
        kind for kind, at in zip(responses, moments, strict=True) if at - start <= window_seconds
    )  # fmt: skip


def reward_of(answers: frozenset[str], weights: Mapping[str, float]) -> float:
    """Return the reward of the kinds of answers that came; kinds without a weight are worth nothing."""
    return min(max(sum(weights.get(kind, 0.0) for kind in sorted(answers)), LOWEST), HIGHEST)


def settled(
    starts: FloatArray, first_answers: FloatArray, *, end: float, window_seconds: float
) -> npt.NDArray[np.bool_]:
    """Say which rows (n,) are old enough at ``end`` that silence means silence.

    ``first_answers`` are the moments of the first answer, NaN where none came; all in seconds.
    """
    delays = first_answers - starts
    known = np.clip(delays[np.isfinite(delays)], 0.0, window_seconds)
    wait = float(np.quantile(known, SETTLED_SHARE, method="higher")) if known.size else 0.0
    return np.asarray(end - starts >= wait)
