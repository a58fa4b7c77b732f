"""The answer to `POST /predict/churn`."""

from __future__ import annotations

from typing import Literal

from schemas.api import Count, Moment, Ratio, ServedShape


class ReturnProbability(ServedShape):
    """How likely a user is to buy again within ``horizon_days``; ``days_since_purchase`` is null for who never bought."""

    probability_of_return: Ratio
    horizon_days: Count
    days_since_purchase: Count | None
    outlook: Literal["likely", "open", "unlikely"]
    predicted_at: Moment
