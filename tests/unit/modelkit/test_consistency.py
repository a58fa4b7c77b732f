"""Which events contradict what is known of their user."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from fincoach_events.events import AnyBehavioralEvent
from modelkit.features import UserState, fold
from modelkit.features.memory import MOST_VOTES
from modelkit.features.state import MAX_GOALS, MAX_SHOWN
from modelkit.statistics.consistency import (
    BALANCE_BROKEN,
    BEFORE_CREATION,
    CURRENCY_CHANGED,
    FIRST_ANSWER,
    TIME_REVERSED,
    WITHOUT_VIEW,
    findings,
)
from schemas.vocabulary import FEEDBACK_INTERACTIONS
from tests.unit.streams.worlds import NOON, aimed, answered, looked, paid

MINUTE = dt.timedelta(minutes=1)


def after(*events: AnyBehavioralEvent) -> UserState | None:
    """Return the state after ``events``."""
    state = None
    for event in events:
        state = fold(state, event)
    return state


def found_in(*events: AnyBehavioralEvent) -> list[int]:
    """Return what is found of each event of a history."""
    state, found = None, []
    for event in events:
        found.append(findings(state, event))
        state = fold(state, event)
    return found


def shown(name: str, interaction: str = "view", **changes: object) -> AnyBehavioralEvent:
    """Return a view of, or an answer to, recommendation ``name``."""
    return answered(interaction, recommendation_id=name, prediction_id=None, **changes)


@pytest.mark.parametrize("answer", sorted(FEEDBACK_INTERACTIONS))
def test_an_answer_to_what_was_never_shown(answer: str) -> None:
    """An answer to what was never shown is a contradiction."""
    assert findings(None, shown("a", answer)) == WITHOUT_VIEW
    assert findings(after(shown("b")), shown("a", answer)) == WITHOUT_VIEW
    assert findings(after(shown("b"), shown("a")), shown("a", answer)) == FIRST_ANSWER


def test_one_view_may_be_answered_several_times_and_is_answered_once() -> None:
    """Several answers to one view are consistent and count as one answer."""
    assert found_in(shown("a"), shown("a", "click"), shown("a"), shown("a", "helpful")) == [0, FIRST_ANSWER, 0, 0]


def test_a_host_that_shows_everything_under_one_name() -> None:
    """Views under one shared name (FinCoach's host calls them auto_generated) contradict nothing."""
    ours = uuid.uuid4()
    by_prediction = [
        answered("view", recommendation_id="auto_generated", prediction_id=ours),
        answered(prediction_id=ours),
    ]
    assert found_in(*by_prediction) == [0, FIRST_ANSWER]
    assert found_in(by_prediction[0], answered(prediction_id=uuid.uuid4())) == [0, WITHOUT_VIEW]
    assert found_in(shown("auto_generated"), shown("row 17", "click")) == [0, 0]


def test_views_that_had_to_be_forgotten_are_not_missed() -> None:
    """A view that left the memory is not missed when it is answered."""
    state = after(*(shown(f"r{number}") for number in range(MAX_SHOWN + 1)))
    assert state is not None
    assert len(state.shown) == MAX_SHOWN
    assert findings(state, shown("r0", "click")) == 0


def test_the_end_of_a_goal_that_never_began() -> None:
    """An outcome without a beginning, or before it, is a contradiction."""
    assert findings(None, aimed("achieve")) == BEFORE_CREATION
    assert findings(after(aimed("create", goal_id="other")), aimed("fail")) == BEFORE_CREATION
    assert findings(after(aimed("create")), aimed("achieve", occurred_at=NOON - MINUTE)) == BEFORE_CREATION
    assert findings(after(aimed("create")), aimed("achieve")) == 0
    assert findings(None, aimed("create")) == 0


def test_goals_that_had_to_be_forgotten_are_not_missed() -> None:
    """A goal that left the memory is not missed when it ends."""
    state = after(*(aimed(goal_id=f"goal {number}") for number in range(MAX_GOALS + 1)))
    assert findings(state, aimed("achieve", goal_id="goal 0")) == 0


def test_a_broken_chain_of_balances() -> None:
    """A balance that does not follow from the one before is a contradiction."""
    state = after(paid(100, balance_after_minor=900))
    assert findings(state, paid(300, balance_after_minor=600, occurred_at=NOON + MINUTE)) == 0
    assert findings(state, paid(300, balance_after_minor=900, occurred_at=NOON + MINUTE)) == BALANCE_BROKEN
    credit = paid(300, balance_after_minor=1_200, occurred_at=NOON + MINUTE, transaction_type="credit")
    assert findings(state, credit) == 0


def test_a_wrong_balance_is_the_fault_of_one_event() -> None:
    """A wrong balance is counted once, and the chain goes on from there."""
    balances = [1_000, 900, 77, 700, 88, 99, 400]
    history = [paid(100, balance_after_minor=value, occurred_at=NOON + n * MINUTE) for n, value in enumerate(balances)]
    assert found_in(*history) == [0, 0, BALANCE_BROKEN, 0, BALANCE_BROKEN, BALANCE_BROKEN, 0]


def test_another_currency_is_noticed_and_a_move_abroad_believed() -> None:
    """Another currency is noticed, and a user who moves abroad is believed after a while."""
    assert found_in(paid(), paid(), paid(currency="EUR"), paid()) == [0, 0, CURRENCY_CHANGED, 0]
    moved = found_in(*[paid()] * 20, *[paid(currency="EUR")] * 12)
    assert moved.count(CURRENCY_CHANGED) == MOST_VOTES + 1
    assert moved[-1] == 0


def test_time_that_runs_backwards_within_a_session() -> None:
    """Time that runs backwards within a session is a contradiction."""
    early, late = NOON, NOON + MINUTE
    state = after(looked(session_id="s", occurred_at=late))
    assert findings(state, looked(session_id="s", occurred_at=early)) == TIME_REVERSED
    assert findings(state, paid(session_id="s", occurred_at=early)) == TIME_REVERSED
    assert findings(state, looked(session_id="s", occurred_at=late)) == 0
    assert findings(state, looked(session_id="s", occurred_at=late - dt.timedelta(seconds=1))) == 0
    assert findings(state, looked(session_id="other", occurred_at=early)) == 0
    assert findings(state, looked(occurred_at=early)) == 0
    assert findings(None, looked(session_id="s")) == 0


def test_what_cannot_be_judged_is_not_blamed() -> None:
    """Missing balances, late events and other event types contradict nothing."""
    assert findings(None, paid(balance_after_minor=5)) == 0
    assert findings(after(paid()), paid(balance_after_minor=5)) == 0
    assert findings(after(paid(balance_after_minor=5)), paid()) == 0
    assert findings(after(paid(balance_after_minor=5)), paid(balance_after_minor=99)) == 0
    assert findings(after(looked()), paid(balance_after_minor=5)) == 0
    assert findings(None, looked()) == 0
