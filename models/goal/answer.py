"""The answer, in the host application's own shape."""

from __future__ import annotations

from schemas.api import Moment, Name, Ratio, ServedShape


class GoalAchievementProbability(ServedShape):
    """How likely a user is to meet a goal; ``goal_id`` is the one that the caller named, if any."""

    goal_id: Name | None = None
    probability: Ratio
    expected_completion_date: Moment | None = None
    risk_factors: list[dict[str, str]]
    improvement_suggestions: list[str]
