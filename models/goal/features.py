"""The row of the goal model: the 35 state features and what is known of the goal at the moment. Pure.

A goal has its latest values: the row of a moment is exact for a state folded up to that moment.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from fincoach_events.events import AmountMinor, AwareDatetime
from modelkit.features.financial import STATE_FEATURES, state_values
from modelkit.features.state import (
    GOAL_ACHIEVED,
    GOAL_DELETED,
    GOAL_FAILED,
    GOAL_OPEN,
    MILLISECONDS_PER_DAY,
    MINOR_PER_MAJOR,
    Goal,
    UserState,
    milliseconds,
)

GOAL_ONLY_FEATURES = (
    "goal_amount",
    "goal_days_left",
    "goal_amount_per_day",
    "goal_savings_gap",
    "goal_amount_to_balance",
    "goal_days_total",
    "goal_time_share",
    "goal_spent_share",
    "goal_spent_ahead",
    "goal_projected_share",
    "goal_progress",
    "goal_progress_known",
    "goal_updates",
    "goal_scores",
    "goal_score_mean",
    "goal_score_last",
    "goal_late_days_mean",
    "goal_work_due",
    "goal_work_missed_share",
    "goal_is_budget",
    "goal_is_savings",
    "goal_is_graded",
    "past_goals",
    "past_achieved_share",
    "spent_28_days",
    "spent_84_days",
)
GOAL_FEATURES = STATE_FEATURES + GOAL_ONLY_FEATURES

_VELOCITY = STATE_FEATURES.index("spending_velocity")
_INCOME = STATE_FEATURES.index("total_income")
_DAYS_OF_UNKNOWN_END = 365
_MOST_PROGRESS = 10.0  # a host's percentage in place of a share must not swamp the column


class GoalFields(msgspec.Struct, frozen=True, kw_only=True):
    """A goal that the state does not know yet, as a caller describes it."""

    target_minor: AmountMinor | None = None
    due_at: AwareDatetime | None = None
    created_at: AwareDatetime | None = None
    kind: str | None = None
    progress: Annotated[float, msgspec.Meta(ge=0.0)] | None = None


_goal_fields = msgspec.json.Decoder(GoalFields)


def goal_in(
    state: UserState | None, goal_id: str | None, fields: Mapping[str, Any] | None = None, *, as_of: dt.datetime
) -> Goal:
    """Return the goal that a caller means: the state's own by its id, else one from ``fields``, else the newest open one, else an empty one.

    Raises:
        msgspec.ValidationError: when ``fields`` are not those of :class:`GoalFields`.
    """
    known = next((goal for goal in state.goals if goal.goal_id == goal_id), None) if state is not None else None
    if known is not None:
        return known
    if fields is None and goal_id is None and state is not None and state.goals:
        return max(state.goals, key=lambda goal: (goal.status == GOAL_OPEN, goal.created_at))
    given = _goal_fields.decode(msgspec.json.encode(fields or {}))
    return Goal(
        goal_id=goal_id or "",
        created_at=milliseconds(given.created_at or as_of),
        kind=given.kind,
        target_minor=given.target_minor,
        due_at=milliseconds(given.due_at) if given.due_at is not None else None,
        progress=given.progress,
    )


def goal_features(state: UserState | None, goal: Goal | str, as_of: dt.datetime) -> npt.NDArray[np.float32]:
    """Return the row at ``as_of`` in the order of :data:`GOAL_FEATURES`, shape (61,); ``goal`` is a goal or the id of one in the state.

    The goal's own outcome does not enter: past goals are the user's others.
    """
    if isinstance(goal, str):
        goal = goal_in(state, goal, as_of=as_of)
    known = state if state is not None else UserState()
    base = state_values(state, as_of)
    now = milliseconds(as_of)
    return np.array(
        [
            *base,
            *_plan(goal, base, now),
            *_budget(known, goal, now),
            *_work(goal, now),
            *_kinds(goal),
            *_past(known, goal, now),
        ],
        dtype=np.float32,
    )


def _span(goal: Goal) -> float:
    if goal.due_at is None:
        return float(_DAYS_OF_UNKNOWN_END)
    return max((goal.due_at - goal.created_at) / MILLISECONDS_PER_DAY, 1.0)


def _gone(goal: Goal, now: int) -> float:
    return min(max((now - goal.created_at) / MILLISECONDS_PER_DAY / _span(goal), 0.0), 1.0)


def _amount(goal: Goal) -> float:
    return (goal.target_minor or 0) / MINOR_PER_MAJOR


def _plan(goal: Goal, base: list[float], now: int) -> list[float]:
    amount, total = _amount(goal), _span(goal)
    left = max(goal.created_at / MILLISECONDS_PER_DAY + total - now / MILLISECONDS_PER_DAY, 0.0)
    per_day = amount / max(left, 1.0)
    daily_savings = base[_INCOME] / 7.0 - base[_VELOCITY]
    return [amount, left, per_day, per_day - daily_savings, amount / max(base[0], 1.0), total, _gone(goal, now)]


def _budget(state: UserState, goal: Goal, now: int) -> list[float]:
    """Return what was spent since creation over the target, how far that is ahead of time, and where it ends at the pace of 84 days."""
    amount = _amount(goal)
    if amount <= 0.0:
        return [0.0, 0.0, 0.0]
    until = now if goal.due_at is None else min(now, goal.due_at - 1)
    spent = _spent(state, goal.created_at // MILLISECONDS_PER_DAY, until // MILLISECONDS_PER_DAY)
    today = now // MILLISECONDS_PER_DAY
    pace = _spent(state, today - 84, today - 1) / 84.0
    left = (1.0 - _gone(goal, now)) * _span(goal)
    return [spent / amount, spent / amount - _gone(goal, now), (spent + pace * left) / amount]


def _spent(state: UserState, first_day: int, last_day: int) -> float:
    """Return the debits of the days from first to last, both included, in major units."""
    return (
        sum(state.day_minor[bisect_left(state.days, first_day) : bisect_right(state.days, last_day)]) / MINOR_PER_MAJOR
    )


def _work(goal: Goal, now: int) -> list[float]:
    due = bisect_right(goal.schedule, (now - goal.created_at) / MILLISECONDS_PER_DAY)
    missed = max(due - goal.updates, 0) / due if due else 0.0
    mean = goal.score_sum / goal.scored if goal.scored else 0.0
    late = goal.late_days / goal.timed if goal.timed else 0.0
    progress = min(goal.progress, _MOST_PROGRESS) if goal.progress is not None else 0.0
    return [
        progress,
        float(goal.progress is not None),
        goal.updates,
        goal.scored,
        mean,
        goal.score_last,
        late,
        due,
        missed,
    ]


def _kinds(goal: Goal) -> list[float]:
    return [float(goal.kind == "budget"), float(goal.kind == "savings"), float(goal.scored > 0 or bool(goal.schedule))]


def _past(state: UserState, goal: Goal, now: int) -> list[float]:
    mine = (
        goal.status
        if any(other.goal_id == goal.goal_id for other in state.goals) and goal.status < GOAL_DELETED
        else GOAL_OPEN
    )
    achieved = state.goals_achieved - (mine == GOAL_ACHIEVED)
    decided = achieved + state.goals_failed - (mine == GOAL_FAILED)
    today = now // MILLISECONDS_PER_DAY
    return [
        decided,
        achieved / decided if decided else 0.0,
        _spent(state, today - 28, today - 1),
        _spent(state, today - 84, today - 1),
    ]
