"""The reducer: one behavioural event into one user's state. Pure; a few microseconds an event.

``fold`` changes the state that it is given and returns it: a caller that needs the old one copies it first.

The order of events: folding the same events in the same order gives the same state however they are cut into
batches. Late events land in the day and at the place where they belong, so transactions and page views commute, except
that equal times keep the order of arrival and that what has already left the window is not brought back. Goal updates keep
the values that arrived last; the memory for checks (:mod:`modelkit.features.memory`) goes by arrival too. Folding the same event twice counts it twice: duplicates are removed before.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
)
from modelkit.features.categories import category_index
from modelkit.features.memory import (
    remember_answer,
    remember_balance,
    remember_currency,
    remember_session,
    remember_view,
)
from modelkit.features.state import (
    CREDIT,
    DAYS_KEPT,
    FEEDBACK_KINDS,
    GOAL_ACHIEVED,
    GOAL_DELETED,
    GOAL_FAILED,
    GOAL_OPEN,
    MAX_GOALS,
    MAX_RECENT,
    MAX_SCHEDULE,
    MILLISECONDS_PER_DAY,
    PRODUCT_KINDS,
    RECENT_SPAN,
    Goal,
    Transaction,
    UserState,
    milliseconds,
)

_FEEDBACK_INDEX = {kind: index for index, kind in enumerate(FEEDBACK_KINDS)}
_PRODUCT_INDEX = {kind: index for index, kind in enumerate(PRODUCT_KINDS)}
_OUTCOMES = {"achieve": GOAL_ACHIEVED, "fail": GOAL_FAILED, "delete": GOAL_DELETED}
_moment_of = itemgetter(0)


def fold(state: UserState | None, event: AnyBehavioralEvent, *, at: int | None = None) -> UserState:
    """Return ``state`` (a new one for None) after ``event``; the given state is changed in place.

    ``at``: ``occurred_at`` in milliseconds, where the caller has it already.

    Raises:
        KeyError: for an event of a type that the reducer does not know.
    """
    if at is None:
        at = milliseconds(event.occurred_at)
    if state is None:
        state = UserState(first_at=at, last_at=at)
    elif at > state.last_at:
        state.last_at = at
    elif at < state.first_at:
        state.first_at = at
    if event.session_id is not None:
        remember_session(state, event.session_id, at)
    _STEPS[type(event)](state, event, at)
    return state


def _fold_transaction(state: UserState, event: TransactionCreated, at: int) -> None:
    amount = event.amount_minor
    category = CREDIT
    state.transactions += 1
    remember_currency(state, event.currency)
    if event.balance_after_minor is not None or state.balances:
        remember_balance(state, event, at)
    if event.transaction_type == "debit":
        category = category_index(event.category)
        state.debits += 1
        state.debit_minor += amount
        state.category_minor[category] += amount
        state.last_debit_at = max(state.last_debit_at, at)
        _add_to_day(state, at // MILLISECONDS_PER_DAY, amount)
    else:
        state.credits += 1
        state.credit_minor += amount
    merchant = event.merchant
    _add_to_recent(
        state, (at, amount, category, zlib.crc32(merchant.encode()) if merchant else 0, event.balance_after_minor)
    )


def _add_to_day(state: UserState, day: int, amount: int) -> None:
    days, sums = state.days, state.day_minor
    if not days or day > days[-1]:
        days.append(day)
        sums.append(amount)
        expired = bisect_right(days, day - DAYS_KEPT)
        if expired:
            del days[:expired], sums[:expired]
        return
    if day <= days[-1] - DAYS_KEPT:
        return
    place = bisect_left(days, day)
    if days[place] == day:
        sums[place] += amount
    else:
        days.insert(place, day)
        sums.insert(place, amount)


def _add_to_recent(state: UserState, transaction: Transaction) -> None:
    recent = state.recent
    if not recent or transaction[0] >= recent[-1][0]:
        recent.append(transaction)
    else:
        insort(recent, transaction, key=_moment_of)
    oldest = recent[-1][0] - RECENT_SPAN
    if recent[0][0] <= oldest:
        del recent[: bisect_right(recent, oldest, key=_moment_of)]
    if len(recent) > MAX_RECENT:
        del recent[0]


def _fold_page_view(state: UserState, event: PageViewed, at: int) -> None:
    del event, at
    state.page_views += 1


def _fold_recommendation(state: UserState, event: RecommendationInteraction, at: int) -> None:
    del at
    kind = event.interaction_type
    state.feedback[_FEEDBACK_INDEX[kind]] += 1
    if kind == "view":
        remember_view(state, event)
    else:
        remember_answer(state, event)


def _fold_product(state: UserState, event: ProductInteraction, at: int) -> None:
    del at
    state.products[_PRODUCT_INDEX[event.interaction_type]] += 1


def _fold_goal(state: UserState, event: GoalModified, at: int) -> None:
    goal = _goal_of(state, event.goal_id, at)
    _take_fields(goal, event)
    step = event.interaction_type
    if step == "update":
        _take_update(goal, event, at)
    elif step in _OUTCOMES and goal.status == GOAL_OPEN:
        goal.status = _OUTCOMES[step]
        state.goals_achieved += step == "achieve"
        state.goals_failed += step == "fail"


def _goal_of(state: UserState, goal_id: str, at: int) -> Goal:
    """Return the user's goal, added where it is unknown; beyond the bound the oldest closed (else the oldest) one is dropped."""
    for goal in reversed(state.goals):
        if goal.goal_id == goal_id:
            goal.created_at = min(goal.created_at, at)
            return goal
    added = Goal(goal_id=goal_id, created_at=at)
    insort(state.goals, added, key=lambda goal: goal.created_at)
    if len(state.goals) > MAX_GOALS:
        leaving = min(state.goals, key=lambda goal: (goal.status == GOAL_OPEN, goal.created_at))
        state.goals.remove(leaving)
    return added


def _take_fields(goal: Goal, event: GoalModified) -> None:
    if event.goal_kind is not None:
        goal.kind = event.goal_kind
    if event.target_minor is not None:
        goal.target_minor = event.target_minor
    if event.due_at is not None:
        goal.due_at = milliseconds(event.due_at)
    if event.progress is not None:
        goal.progress = event.progress
    if event.additional_data:
        goal.schedule = _schedule_in(event.additional_data) or goal.schedule


def _take_update(goal: Goal, event: GoalModified, at: int) -> None:
    late = _late_days(goal, event, at)
    goal.updates += 1
    if late is not None:
        goal.timed += 1
        goal.late_days += late
    if event.score is not None:
        goal.scored += 1
        goal.score_sum += event.score
        goal.score_last = event.score


def _late_days(goal: Goal, event: GoalModified, at: int) -> float | None:
    """Return how late this piece of work is: as the host reports it, else by the schedule, taken in order."""
    reported = _number((event.additional_data or {}).get("late_days"))
    if reported is not None or goal.updates >= len(goal.schedule):
        return reported
    return (at - goal.created_at) / MILLISECONDS_PER_DAY - goal.schedule[goal.updates]


def _schedule_in(extra: Mapping[str, Any]) -> list[float]:
    given = extra.get("schedule_days")
    if not isinstance(given, list):
        return []
    numbers = [_number(item) for item in given[:MAX_SCHEDULE]]
    return sorted(number for number in numbers if number is not None)


def _number(value: object) -> float | None:
    """Return ``value`` as a float, or None when the host put something else there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e6 else None  # noqa: PLR2004 - days; larger ones are mistakes, and inf and nan end here


_STEPS: dict[type, Callable[[UserState, Any, int], None]] = {
    TransactionCreated: _fold_transaction,
    PageViewed: _fold_page_view,
    RecommendationInteraction: _fold_recommendation,
    ProductInteraction: _fold_product,
    GoalModified: _fold_goal,
}
