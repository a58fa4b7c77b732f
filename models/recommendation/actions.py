"""FinCoach's action set: what a user can be advised to do. Pure."""

from __future__ import annotations

DEFAULT_ACTION_SET = "fincoach-5"
RECOMMENDATION_ACTIONS = (
    "continue_current_behavior",
    "spending_alert",
    "budget_suggestion",
    "savings_nudge",
    "positive_reinforcement",
)
