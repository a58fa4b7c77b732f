"""Whether an event fits what is known of its user: cheap checks against the state before the event. Pure.

Only what the state remembers can be checked. An event that fits nothing is still archived and counted; it lowers the
consistency score, by kind. What cannot be judged is not blamed: late events, equal times, what the state had to forget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
)
from modelkit.features.memory import balances_after, is_answered_for_the_first_time, session_key
from modelkit.features.state import MAX_GOALS, UserState, milliseconds
from schemas.vocabulary import GOAL_OUTCOMES

# What is found of one event, as bits; the contradictions are named as their counters in ``DatasetCounts`` are.
WITHOUT_VIEW: Final = 1
BEFORE_CREATION: Final = 2
BALANCE_BROKEN: Final = 4
CURRENCY_CHANGED: Final = 8
TIME_REVERSED: Final = 16
FIRST_ANSWER: Final = 32  # no contradiction: a shown recommendation has its first answer
CONTRADICTIONS: Final[dict[str, int]] = {
    "without_view": WITHOUT_VIEW,
    "before_creation": BEFORE_CREATION,
    "balance_broken": BALANCE_BROKEN,
    "currency_changed": CURRENCY_CHANGED,
    "time_reversed": TIME_REVERSED,
}
ANY_CONTRADICTION: Final = sum(CONTRADICTIONS.values())

SESSION_TOLERANCE_MILLISECONDS = 1_000  # two requests of one page may be written down in either order


def findings(state: UserState | None, event: AnyBehavioralEvent, *, at: int | None = None) -> int:
    """Return what ``state``, the user's state before ``event`` (None for a new user), says of it; 0 for nothing.

    ``at``: ``occurred_at`` in milliseconds, where the caller has it already.
    """
    found = _CHECKS[type(event)](state, event)
    if event.session_id is not None and state is not None and session_key(event.session_id) == state.session:
        behind = state.session_at - (milliseconds(event.occurred_at) if at is None else at)
        found |= TIME_REVERSED if behind > SESSION_TOLERANCE_MILLISECONDS else 0
    return found


def _transaction(state: UserState | None, event: TransactionCreated) -> int:
    if state is None:
        return 0
    found = CURRENCY_CHANGED if event.currency != state.currency and state.currency else 0
    if event.balance_after_minor is not None and balance_broken(state, event):
        found |= BALANCE_BROKEN
    return found


def _recommendation(state: UserState | None, event: RecommendationInteraction) -> int:
    if event.interaction_type == "view":
        return 0
    is_first = None if state is None else is_answered_for_the_first_time(state, event)
    if is_first is None:
        return WITHOUT_VIEW
    return FIRST_ANSWER if is_first else 0


def _goal(state: UserState | None, event: GoalModified) -> int:
    """A goal is achieved or failed that nobody has heard of, or before anybody had."""
    if event.interaction_type not in GOAL_OUTCOMES:
        return 0
    known = None if state is None else next((goal for goal in state.goals if goal.goal_id == event.goal_id), None)
    if known is not None:
        return BEFORE_CREATION if milliseconds(event.occurred_at) < known.created_at else 0
    has_forgotten = state is not None and len(state.goals) >= MAX_GOALS
    return 0 if has_forgotten else BEFORE_CREATION


def _nothing(state: UserState | None, event: object) -> int:
    del state, event
    return 0


def balance_broken(state: UserState, event: TransactionCreated) -> bool:
    """The balance after this transaction follows from nothing that is known; late events and equal times are not judged."""
    if not state.balances or (state.recent and state.recent[-1][0] >= milliseconds(event.occurred_at)):
        return False
    return event.balance_after_minor not in balances_after(state, event)


_CHECKS: dict[type, Callable[[UserState | None, Any], int]] = {
    TransactionCreated: _transaction,
    RecommendationInteraction: _recommendation,
    GoalModified: _goal,
    ProductInteraction: _nothing,
    PageViewed: _nothing,
}
