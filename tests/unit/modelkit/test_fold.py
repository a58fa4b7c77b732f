"""One event after another: counts, bounds, late events."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from modelkit.features import CATEGORIES, UserState, copy_state, decode_state, encode_state, fold
from modelkit.features import state as rules
from modelkit.features.categories import category_index
from modelkit.features.state import CREDIT, DAYS_KEPT, GOAL_ACHIEVED, GOAL_DELETED, GOAL_OPEN, MAX_GOALS, MAX_RECENT
from tests.unit.models.samples import at, feedback, goal, page_view, product, transaction

START = at("2026-03-02 12:00")
DAY = dt.timedelta(days=1)


def folded(*events: object) -> UserState:
    """Return the state after the events."""
    state: UserState | None = None
    for event in events:
        state = fold(state, event)  # type: ignore[arg-type]
    assert state is not None
    return state


def test_transactions_are_counted_and_summed() -> None:
    """Transactions are counted and summed over the user's life."""
    state = folded(
        transaction(START, 10, "bills"), transaction(START + DAY, 5, transaction_type="credit"), page_view(START)
    )
    assert (state.transactions, state.debits, state.credits) == (2, 1, 1)
    assert (state.debit_minor, state.credit_minor) == (1_000, 500)
    assert state.category_minor[CATEGORIES.index("bills")] == 1_000
    assert [item[2] for item in state.recent] == [CATEGORIES.index("bills"), CREDIT]


def test_engagement_is_counted_by_kind() -> None:
    """Feedback is counted by its kind."""
    state = folded(
        feedback(START, "view"), feedback(START, "not_helpful"), product(START, "purchase"), page_view(START)
    )
    assert state.feedback == [1, 0, 0, 0, 0, 1]
    assert state.products == [0, 0, 1, 0]
    assert state.page_views == 1
    assert state.transactions == 0


def test_first_and_last_moment_do_not_depend_on_the_order() -> None:
    """First and last moment are the same in any order of events."""
    state = folded(page_view(START), page_view(START - DAY), page_view(START + DAY), page_view(START))
    assert (state.first_at, state.last_at) == (
        round((START - DAY).timestamp() * 1000),
        round((START + DAY).timestamp() * 1000),
    )


def test_late_transaction_lands_where_it_belongs() -> None:
    """A late transaction lands in its own day and place."""
    events = [transaction(START + DAY * number, number + 1) for number in range(6)]
    late = [events[3], events[0], events[5], events[1], events[4], events[2]]
    assert encode_state(folded(*late)) == encode_state(folded(*events))


def test_second_transaction_of_an_older_day_adds_to_it() -> None:
    """A late transaction of a known day adds to that day."""
    state = folded(transaction(START, 1), transaction(START + DAY, 2), transaction(START, 4))
    assert state.day_minor == [500, 200]


def test_what_has_left_the_window_is_not_brought_back() -> None:
    """What has left the window stays out."""
    old = transaction(START - DAY * 500, 3)
    assert folded(transaction(START, 1), old).recent == folded(old, transaction(START, 1)).recent
    assert folded(transaction(START, 1), old).days == folded(old, transaction(START, 1)).days
    assert folded(transaction(START, 1), old).debit_minor == 400


def test_state_is_bounded() -> None:
    """A busy user's state stays within its bounds."""
    minute = dt.timedelta(minutes=1)
    state = folded(*(transaction(START + minute * number, 1, merchant="m" * 500) for number in range(MAX_RECENT + 50)))
    assert len(state.recent) == MAX_RECENT
    assert state.transactions == MAX_RECENT + 50
    for number in range(DAYS_KEPT + 100):
        state = fold(state, transaction(START + DAY * number, 10_000))
    for number in range(MAX_GOALS + 10):
        state = fold(state, goal(START + DAY * number, "create", f"goal-{number}"))
    assert len(state.days) == DAYS_KEPT
    assert len(state.goals) == MAX_GOALS
    assert len(encode_state(state)) < 32_768


def test_oldest_closed_goal_leaves_first() -> None:
    """The oldest closed goal is forgotten before any open one."""
    state = folded(goal(START, "create", "open"), goal(START + DAY, "create", "done"))
    state = fold(state, goal(START + DAY, "achieve", "done"))
    for number in range(MAX_GOALS - 1):
        state = fold(state, goal(START + DAY * (number + 2), "create", f"goal-{number}"))
    names = [known.goal_id for known in state.goals]
    assert "open" in names
    assert "done" not in names


def test_goal_is_followed_from_creation_to_outcome() -> None:
    """A goal is followed from its creation to its outcome."""
    due = START + DAY * 10
    state = folded(
        goal(START, "create", goal_kind="savings", target_minor=5_000, due_at=due),
        goal(START + DAY, "update", progress=0.25, score=60.0),
        goal(START + DAY * 2, "update", score=80.0),
    )
    known = state.goals[0]
    assert (known.kind, known.target_minor, known.due_at, known.status) == (
        "savings",
        5_000,
        round(due.timestamp() * 1000),
        GOAL_OPEN,
    )
    assert (known.progress, known.updates, known.scored, known.score_sum, known.score_last) == (0.25, 2, 2, 140.0, 80.0)
    state = fold(state, goal(START + DAY * 3, "achieve"))
    assert (state.goals[0].status, state.goals_achieved, state.goals_failed) == (GOAL_ACHIEVED, 1, 0)


def test_first_outcome_stands() -> None:
    """Only the first outcome of a goal counts."""
    state = folded(goal(START, "create"), goal(START, "achieve"), goal(START, "achieve"), goal(START, "fail"))
    assert (state.goals_achieved, state.goals_failed) == (1, 0)


def test_outcome_of_an_unknown_goal_counts() -> None:
    """The outcome of an unknown goal counts."""
    assert folded(goal(START, "fail")).goals_failed == 1


def test_deleted_goal_is_no_outcome() -> None:
    """A deleted goal has no outcome."""
    state = folded(goal(START, "create"), goal(START, "delete"), goal(START, "fail"))
    assert (state.goals[0].status, state.goals_achieved + state.goals_failed) == (GOAL_DELETED, 0)


def test_lateness_comes_from_the_schedule_or_from_the_host() -> None:
    """Lateness comes from the host, or else from the schedule."""
    state = folded(
        goal(START, "create", additional_data={"schedule_days": [20, 10, "x", True]}),
        goal(START + DAY * 12, "update"),
        goal(START + DAY * 15, "update", additional_data={"late_days": -3}),
        goal(START + DAY * 40, "update"),
    )
    known = state.goals[0]
    assert known.schedule == [10.0, 20.0]
    assert (known.updates, known.timed, known.late_days) == (3, 2, -1.0)


def test_what_a_state_keeps_changes_only_with_the_reducers_version() -> None:
    """A bound of the state changes only together with the reducer's version."""
    bounds = rules.MAX_RECENT, rules.RECENT_SPAN, rules.DAYS_KEPT, rules.MAX_GOALS, rules.MAX_SCHEDULE, rules.MAX_SHOWN
    assert (rules.REDUCER_VERSION, *bounds) == (2, 512, 2_678_400_000, 434, 32, 64, 256)


@pytest.mark.parametrize(("given", "kept"), [(63, 63), (64, 64), (65, 64), (10_000, 64)])
def test_a_schedule_is_kept_up_to_sixty_four_pieces(given: int, kept: int) -> None:
    """A schedule keeps at most 64 pieces, enough for a year of weekly work."""
    days = list(range(given))
    known = folded(goal(START, "create", additional_data={"schedule_days": days})).goals[0]
    assert known.schedule == days[:kept]


@pytest.mark.parametrize("extra", [{"schedule_days": 3}, {"schedule_days": [float("inf"), 1e9]}, {"late_days": "two"}])
def test_odd_additional_data_is_ignored(extra: dict[str, object]) -> None:
    """Unexpected values in a host's free-form field are ignored."""
    known = folded(goal(START, "create"), goal(START, "update", additional_data=extra)).goals[0]
    assert (known.schedule, known.timed) == ([], 0)


@pytest.mark.parametrize(
    ("name", "category"),
    [("Groceries", "groceries"), ("dining out", "dine_out"), (" Salary", "income"), ("CD", "other")],
)
def test_host_categories_are_brought_to_the_eleven(name: str, category: str) -> None:
    """A host's spelling of a category is brought to one of the eleven."""
    assert CATEGORIES[category_index(name)] == category


def test_copy_shares_nothing() -> None:
    """A copy shares nothing with the original."""
    state = folded(transaction(START, 1))
    kept = copy_state(state)
    fold(state, transaction(START, 2))
    assert kept.transactions == 1
    assert len(kept.recent) == 1


def test_garbage_is_no_state() -> None:
    """Bytes that are no state are refused."""
    with pytest.raises(msgspec.DecodeError):
        decode_state(b"\x93\x01")
