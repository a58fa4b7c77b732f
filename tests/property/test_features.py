"""Properties of features and states that hold for every history."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    RecommendationInteraction,
    TransactionCreated,
)
from modelkit.features import UserState, copy_state, decode_state, encode_state, fold, replay, state_features
from modelkit.features.state import MAX_GOALS, MAX_RECENT
from models.goal.features import goal_features, goal_in
from models.segmentation.features import segmentation_features
from models.spending.features import spending_features, weekly_series
from models.spending.forecasts import FORECASTS

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
USER = uuid.UUID(int=1)

moments = st.integers(0, 120 * 24 * 60).map(lambda minutes: START + dt.timedelta(minutes=minutes))
common = {"event_id": st.uuids(), "user_id": st.just(USER), "consent": st.sampled_from([True]), "occurred_at": moments}
transactions = st.builds(
    TransactionCreated,
    **common,
    amount_minor=st.integers(0, 10**12),
    currency=st.just("USD"),
    category=st.sampled_from(["groceries", "bills", "CD", "income"]),
    transaction_type=st.sampled_from(["debit", "credit"]),
    merchant=st.none() | st.sampled_from(["a", "b"]),
    balance_after_minor=st.none() | st.integers(-(10**12), 10**12),
)
goals = st.builds(
    GoalModified,
    **common,
    goal_id=st.sampled_from(["g1", "g2"]),
    interaction_type=st.sampled_from(["create", "update", "delete", "achieve", "fail"]),
    target_minor=st.none() | st.integers(0, 10**12),
    due_at=st.none() | moments,
    progress=st.none() | st.floats(0, 1e308),
    score=st.none() | st.floats(0, 100),
    additional_data=st.none() | st.fixed_dictionaries({"schedule_days": st.lists(st.integers(0, 200), max_size=5)}),
)
others = st.builds(PageViewed, **common, page_url=st.just("/")) | st.builds(
    RecommendationInteraction,
    **common,
    recommendation_id=st.just("r"),
    interaction_type=st.sampled_from(["view", "click", "dismiss", "implement", "helpful", "not_helpful"]),
)
histories = st.lists(transactions | goals | others, max_size=40)


def folded(events: Sequence[AnyBehavioralEvent], state: UserState | None = None) -> UserState | None:
    """Return the state after the events."""
    for event in events:
        state = fold(state, event)
    return state


def every_row(state: UserState | None, as_of: dt.datetime) -> npt.NDArray[np.float32]:
    """Return the concatenated rows of all four models."""
    return np.concatenate(
        [
            state_features(state, as_of),
            spending_features(state, as_of),
            segmentation_features(state, as_of),
            goal_features(state, goal_in(state, None, as_of=as_of), as_of),
        ]
    )


@given(histories, st.data())
def test_batches_may_be_cut_anywhere(events: list[AnyBehavioralEvent], data: st.DataObject) -> None:
    """Cuts between batches do not change the state."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    state: UserState | None = None
    for first, last in pairwise([0, *cuts, len(events)]):
        state = folded(events[first:last], state)
        state = decode_state(encode_state(state)) if state is not None else None
    assert state == folded(events)


@given(histories)
def test_bytes_hold_the_whole_state(events: list[AnyBehavioralEvent]) -> None:
    """A state survives its bytes."""
    state = folded(events)
    if state is not None:
        assert decode_state(encode_state(state)) == state
        assert encode_state(copy_state(state)) == encode_state(state)


@given(histories, moments)
def test_rows_are_finite_and_leave_the_state_alone(events: list[AnyBehavioralEvent], as_of: dt.datetime) -> None:
    """Rows are finite, and computing them leaves the state unchanged."""
    state = folded(events)
    before = encode_state(state) if state is not None else None
    assert np.isfinite(every_row(state, as_of)).all()
    assert (encode_state(state) if state is not None else None) == before


@given(histories, moments)
def test_serving_and_training_see_the_same(events: list[AnyBehavioralEvent], as_of: dt.datetime) -> None:
    """Training and serving compute the same rows for the same moment."""
    ordered = sorted(events, key=lambda event: event.occurred_at)
    ((_, replayed),) = replay(ordered, [as_of])
    served = folded([event for event in ordered if event.occurred_at < as_of])
    assert np.array_equal(every_row(replayed, as_of), every_row(served, as_of))


@given(st.lists(transactions, max_size=30), moments)
def test_what_comes_later_does_not_change_windows(events: list[TransactionCreated], as_of: dt.datetime) -> None:
    """Events up to a day after a moment do not change its windows."""
    day = dt.timedelta(days=1)
    near = [event for event in events if event.occurred_at <= as_of + day]
    past = [event for event in near if event.occurred_at <= as_of]
    assert np.array_equal(state_features(folded(near), as_of), state_features(folded(past), as_of))
    assert np.array_equal(weekly_series(folded(near), as_of), weekly_series(folded(past), as_of))


@given(st.lists(transactions, max_size=30, unique_by=lambda event: event.occurred_at), st.data())
def test_order_of_arrival_does_not_matter_for_transactions(
    events: list[TransactionCreated], data: st.DataObject
) -> None:
    """The order of arrival of transactions does not change the state."""
    one, other = folded(events), folded(data.draw(st.permutations(events)))
    for state in (one, other):
        if state is not None:
            state.balances.clear()  # balances depend on the order of arrival, and no feature reads them
    assert (encode_state(one) if one else None) == (encode_state(other) if other else None)


@given(histories)
def test_state_keeps_its_bounds_and_its_order(events: list[AnyBehavioralEvent]) -> None:
    """The state keeps its bounds, and its lists stay sorted."""
    state = folded(events)
    if state is None:
        return
    assert len(state.recent) <= MAX_RECENT
    assert len(state.goals) <= MAX_GOALS
    assert state.days == sorted(set(state.days))
    times = [item[0] for item in state.recent]
    assert times == sorted(times)
    assert state.transactions == state.debits + state.credits
    assert state.debit_minor >= sum(state.day_minor)


@given(st.lists(st.floats(0, 1e6, width=32), min_size=52, max_size=52), st.sampled_from(sorted(FORECASTS)))
def test_forecasts_stay_between_nothing_and_the_largest_month(series: list[float], name: str) -> None:
    """Forecasts lie between zero and the largest month."""
    rows = np.array([series], dtype=np.float32)
    forecast = FORECASTS[name](rows)
    assert forecast.shape == (1, 4)
    assert (forecast >= 0).all()
    assert (forecast <= rows.max() * 1.0001 + 1e-6).all()
