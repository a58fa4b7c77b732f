"""Splits in the order of time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.training.splits import clusters_of, time_ordered

MOMENTS = st.lists(st.integers(0, 50), max_size=60)
SHARES = st.floats(0.0, 0.45)


@given(MOMENTS, SHARES, SHARES, st.integers(0, 5))
def test_no_part_holds_a_row_that_is_older_than_one_of_the_part_before(
    times: list[int], validation: float, holdout: float, gap: int
) -> None:
    """No row of a later part is older than a row of an earlier one."""
    moments = np.array(times, dtype=float)
    split = time_ordered(moments, validation_share=validation, holdout_share=holdout, gap=gap)
    parts = [moments[rows] for rows in split]
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if parts[earlier].size and parts[later].size:
            assert parts[earlier].max() + gap < parts[later].min() or (
                gap and parts[earlier].max() < parts[later].min()
            )
    assert len(set(np.concatenate(split).tolist())) == sum(len(rows) for rows in split) <= len(times)


@given(st.lists(st.floats(0, 1e6), min_size=20, max_size=200, unique=True))
def test_without_a_gap_no_row_is_lost_and_the_shares_are_kept(times: list[float]) -> None:
    """Without a gap every row is in a part, and the shares are kept."""
    split = time_ordered(times, validation_share=0.25, holdout_share=0.25)
    assert sum(len(rows) for rows in split) == len(times)
    assert abs(len(split.holdout) - len(times) / 4) <= 1


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    """Shares that leave nothing to train on are refused."""
    with pytest.raises(ValueError, match="train"):
        time_ordered([1, 2, 3], validation_share=0.5, holdout_share=0.5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_rows_of_one_user_and_no_others_share_a_cluster(users: list[int]) -> None:
    """Rows share a cluster if and only if they are of one user."""
    clusters = clusters_of(users)
    assert {tuple(pair) for pair in zip(users, clusters.tolist(), strict=True)}.__len__() == len(set(users))
    assert sorted(set(clusters.tolist())) == list(range(len(set(users))))
