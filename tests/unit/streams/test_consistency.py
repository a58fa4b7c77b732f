"""Which events contradict what is known of their user."""

from __future__ import annotations

import datetime as dt

from fincoach_events.events import AnyBehavioralEvent
from models.features import UserState, fold
from streams.consistency import is_inconsistent
from tests.unit.streams.worlds import NOON, aimed, answered, looked, paid


def after(*events: AnyBehavioralEvent) -> UserState | None:
    """Return the state after ``events``."""
    state = None
    for event in events:
        state = fold(state, event)
    return state


def test_implementing_what_was_never_shown() -> None:
    """Invented feedback would pass for real."""
    assert is_inconsistent(None, answered("implement"))
    assert is_inconsistent(after(answered("click")), answered("implement"))
    assert not is_inconsistent(after(answered("view")), answered("implement"))
    assert not is_inconsistent(after(answered("view"), answered("implement")), answered("implement"))
    assert not is_inconsistent(None, answered("click"))


def test_the_end_of_a_goal_that_never_began() -> None:
    """Outcomes without a beginning would pass for real."""
    assert is_inconsistent(None, aimed("achieve"))
    assert is_inconsistent(after(aimed("create", goal_id="other")), aimed("fail"))
    assert not is_inconsistent(after(aimed("create")), aimed("achieve"))
    assert not is_inconsistent(None, aimed("create"))


def test_a_broken_chain_of_balances() -> None:
    """Missing or invented transactions would not be noticed."""
    later = NOON + dt.timedelta(hours=1)
    state = after(paid(100, balance_after_minor=900))
    assert not is_inconsistent(state, paid(300, balance_after_minor=600, occurred_at=later))
    assert is_inconsistent(state, paid(300, balance_after_minor=900, occurred_at=later))
    credit = paid(300, balance_after_minor=1_200, occurred_at=later, transaction_type="credit")
    assert not is_inconsistent(state, credit)


def test_what_cannot_be_judged_is_not_blamed() -> None:
    """Clean data without balances, late events and other types would lower the score."""
    assert not is_inconsistent(None, paid(balance_after_minor=5))
    assert not is_inconsistent(after(paid()), paid(balance_after_minor=5))
    assert not is_inconsistent(after(paid(balance_after_minor=5)), paid())
    assert not is_inconsistent(after(paid(balance_after_minor=5)), paid(balance_after_minor=99))
    assert not is_inconsistent(after(looked()), paid(balance_after_minor=5))
    assert not is_inconsistent(None, looked())
