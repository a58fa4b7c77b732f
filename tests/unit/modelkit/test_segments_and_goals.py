"""The rows of segmentation and of goals, and replays of the past."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np
import pytest

from modelkit.features import STATE_FEATURES, Goal, UserState, fold, replay, state_features
from models.goal.features import GOAL_FEATURES, goal_features, goal_in
from models.segmentation.features import SEGMENTATION_FEATURES, segmentation_features
from tests.unit.models.samples import at, feedback, goal, page_view, product, transaction

START = at("2026-03-01 00:00")
DAY = dt.timedelta(days=1)


def folded(*events: object) -> UserState:
    """Return the state after the events."""
    state: UserState | None = None
    for event in events:
        state = fold(state, event)  # type: ignore[arg-type]
    assert state is not None
    return state


def goal_row(state: UserState | None, target: Goal | str, as_of: dt.datetime) -> dict[str, float]:
    """Return the row of a goal by name."""
    return dict(zip(GOAL_FEATURES, goal_features(state, target, as_of).tolist(), strict=True))


def test_segmentation_row() -> None:
    """Each column of the segmentation row is what its name says."""
    state = folded(
        transaction(START, 30),
        transaction(START + DAY * 10, 10, "bills"),
        transaction(START + DAY * 10, 5, transaction_type="credit"),
        feedback(START, "view"),
        feedback(START, "click"),
        feedback(START, "dismiss"),
        page_view(START),
        product(START, "purchase"),
        goal(START, "create"),
        goal(START, "achieve"),
    )
    row = dict(zip(SEGMENTATION_FEATURES, segmentation_features(state, START + DAY * 20).tolist(), strict=True))
    assert row == pytest.approx(
        {
            "recency_days": 10,
            "frequency": 2,
            "monetary_mean": 20,
            "monetary_sum": 40,
            "tenure_days": 20,
            "days_between_debits": 10,
            "distinct_categories": 2,
            "top_category_share": 0.75,
            "credit_share": 1 / 3,
            "feedback_given": 2,
            "feedback_positive_share": 0.5,
            "page_views": 1,
            "products_bought": 1,
            "goals_decided": 1,
            "goals_achieved_share": 1,
        }
    )


def test_unknown_user_has_a_finite_segmentation_row() -> None:
    """An unknown user has a finite segmentation row."""
    row = segmentation_features(None, START)
    assert row.shape == (len(SEGMENTATION_FEATURES),)
    assert np.isfinite(row).all()


def test_goal_row_begins_with_the_state_features() -> None:
    """A goal row begins with the state features, in the host's order."""
    state = folded(transaction(START, 10), goal(START, "create", target_minor=100))
    row = goal_features(state, "g1", START + DAY)
    assert GOAL_FEATURES[:35] == STATE_FEATURES
    assert np.array_equal(row[:35], state_features(state, START + DAY))


def test_savings_goal_row() -> None:
    """A savings goal's row has its amount, days, amount per day and gap."""
    state = folded(
        transaction(START, 50, transaction_type="credit", balance_after_minor=400_00),
        goal(START, "create", goal_kind="savings", target_minor=200_00, due_at=START + DAY * 20, progress=0.1),
    )
    row = goal_row(state, "g1", START + DAY * 5)
    assert (row["goal_amount"], row["goal_days_total"], row["goal_days_left"]) == (200, 20, 15)
    assert row["goal_amount_per_day"] == pytest.approx(200 / 15)
    assert row["goal_savings_gap"] == pytest.approx(200 / 15 - 50 / 7)
    assert (row["goal_amount_to_balance"], row["goal_time_share"]) == (0.5, 0.25)
    assert row["goal_progress"] == pytest.approx(0.1)
    assert (row["goal_progress_known"], row["goal_is_savings"]) == (1, 1)


def test_budget_goal_row() -> None:
    """A budget counts what was spent since it began, and nothing before."""
    state = folded(
        transaction(START - DAY, 84),
        goal(START, "create", goal_kind="budget", target_minor=100_00, due_at=START + DAY * 30),
        transaction(START + DAY, 30),
        transaction(START + DAY * 9, 20),
    )
    row = goal_row(state, "g1", START + DAY * 15)
    assert row["goal_spent_share"] == 0.5
    assert row["goal_spent_ahead"] == 0
    assert row["goal_projected_share"] == pytest.approx((50 + 134 / 84 * 15) / 100)
    assert (row["spent_28_days"], row["spent_84_days"], row["goal_is_budget"]) == (134, 134, 1)


def test_budget_stops_counting_at_its_end() -> None:
    """Spending after a budget's end does not count."""
    state = folded(
        goal(START, "create", goal_kind="budget", target_minor=100_00, due_at=START + DAY * 10),
        transaction(START + DAY * 10, 70),
    )
    assert goal_row(state, "g1", START + DAY * 12)["goal_spent_share"] == 0


def test_course_work_row() -> None:
    """A row of course work has its missed work, scores and punctuality."""
    state = folded(
        goal(START, "create", additional_data={"schedule_days": [10, 20, 30, 90]}),
        goal(START + DAY * 12, "update", score=60.0),
        goal(START + DAY * 19, "update", score=80.0),
    )
    row = goal_row(state, "g1", START + DAY * 40)
    assert (row["goal_work_due"], row["goal_updates"], row["goal_is_graded"]) == (3, 2, 1)
    assert row["goal_work_missed_share"] == pytest.approx(1 / 3)
    assert (row["goal_score_mean"], row["goal_score_last"]) == (70, 80)
    assert row["goal_late_days_mean"] == pytest.approx(0.5)


def test_own_outcome_is_not_among_the_past() -> None:
    """A goal's own outcome is not in its row."""
    events = [goal(START, "create", "old"), goal(START, "fail", "old"), goal(START + DAY, "create", "new")]
    open_row = goal_features(folded(*events), "new", START + DAY * 2)
    decided = folded(*events, goal(START + DAY, "achieve", "new"))
    assert np.array_equal(goal_features(decided, "new", START + DAY * 2), open_row)
    row = goal_row(decided, "new", START + DAY * 2)
    assert (row["past_goals"], row["past_achieved_share"]) == (1, 0)


def test_goal_may_be_described_or_guessed() -> None:
    """A goal may be described in the request, or else is the newest open one."""
    state = folded(
        goal(START, "create", "first"), goal(START + DAY, "create", "second"), goal(START + DAY, "fail", "second")
    )
    described = goal_in(state, "third", {"target_minor": 500, "due_at": "2026-04-01T00:00:00Z"}, as_of=START)
    assert (described.goal_id, described.target_minor, described.created_at) == (
        "third",
        500,
        round(START.timestamp() * 1000),
    )
    assert goal_in(state, "second", {"target_minor": 1}, as_of=START).target_minor is None
    assert goal_in(state, None, as_of=START).goal_id == "first"
    assert goal_in(None, None, as_of=START).target_minor is None
    assert np.isfinite(goal_features(None, goal_in(None, None, as_of=START), START)).all()


@pytest.mark.parametrize("fields", [{"target_minor": -1}, {"due_at": "2026-04-01T00:00:00"}, {"progress": "half"}])
def test_malformed_description_is_refused(fields: dict[str, object]) -> None:
    """A malformed description of a goal is refused."""
    with pytest.raises(msgspec.ValidationError):
        goal_in(None, "g", fields, as_of=START)


def test_huge_progress_stays_finite() -> None:
    """A huge progress gives a finite row."""
    state = folded(goal(START, "create", progress=1e300))
    assert np.isfinite(goal_features(state, "g1", START)).all()


def test_replay_gives_the_states_before_each_moment() -> None:
    """A replayed state knows only what happened before its moment."""
    events = [transaction(START + DAY * number, 1) for number in range(4)]
    moments = [START, START + DAY, START + DAY * 10]
    seen = [state.transactions if state else None for _, state in replay(events, moments)]
    assert seen == [None, 1, 4]


def test_replay_knows_a_late_event_from_its_place_in_the_log() -> None:
    """A replay knows a late event only from its place in the log on."""
    events = [transaction(START + DAY * 5, 1), transaction(START, 1)]
    seen = [state.transactions if state else 0 for _, state in replay(events, [START + DAY, START + DAY * 6])]
    assert seen == [0, 2]


def test_replay_refuses_moments_that_go_back() -> None:
    """A replay refuses moments that go back."""
    with pytest.raises(ValueError, match="ascend"):
        list(replay([], [START + DAY, START]))
