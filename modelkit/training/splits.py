"""How examples are divided for fitting, selecting and judging: always in the order of time. Pure.

No example of a later part may be older than one of an earlier part: a random split scored .806 where the
time-ordered one scored .572 on the same public set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Row numbers of the three parts; ``validation`` selects among candidates, ``holdout`` judges the one that was selected."""

    train: IntArray
    validation: IntArray
    holdout: IntArray


def time_ordered(
    times: npt.ArrayLike, *, validation_share: float = 0.2, holdout_share: float = 0.2, gap: float = 0.0
) -> Split:
    """Return the rows of ``times`` (n,) as train, validation and holdout, oldest first.

    Rows of one moment stay in one part. ``gap`` (in the unit of ``times``) before each border is left out, for
    labels that become known only later than their example.

    Raises:
        ValueError: when the shares leave nothing to train on.
    """
    if not 0 <= validation_share + holdout_share < 1:
        raise ValueError("validation_share and holdout_share must leave something to train on")
    moments = np.asarray(times, dtype=np.float64)
    if moments.size == 0:
        return Split(*(np.empty(0, dtype=np.int64) for _ in range(3)))
    ordered = np.sort(moments)
    first_validation = _border(ordered, 1 - validation_share - holdout_share)
    first_holdout = _border(ordered, 1 - holdout_share)
    train = moments < first_validation - gap
    validation = (moments >= first_validation) & (moments < first_holdout - gap)
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(moments >= first_holdout))


def _border(ordered: npt.NDArray[np.float64], share: float) -> float:
    position = round(share * ordered.size)
    return float(ordered[position]) if position < ordered.size else float("inf")


def clusters_of(users: npt.ArrayLike) -> IntArray:
    """Return for each row the number of its user, 0 .. users - 1: what a bootstrap draws is users, not rows."""
    _, numbers = np.unique(np.asarray(users), return_inverse=True)
    return numbers.astype(np.int64).reshape(-1)
