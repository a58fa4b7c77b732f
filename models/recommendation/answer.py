"""The answer, in the host application's own shape."""

from __future__ import annotations

from typing import Any

from schemas.api import Count, Moment, Name, Ratio, ServedShape


class AIRecommendation(ServedShape):
    """What a user is advised to do, and with which probability just this was chosen."""

    action_id: Count
    action_type: Name
    recommendation: str
    confidence: Ratio
    state_summary: dict[str, Any]
    generated_at: Moment
    propensity: Ratio | None = None
