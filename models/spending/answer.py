"""The answer, in the host application's own shape."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.api import Interval, Moment, Number, Ratio, ServedShape


class SpendingPrediction(ServedShape):
    """What a user will spend in a week, in major units of the currency, with intervals as [lower, upper].

    Intervals are of ``next_week``, of each week as ``week_1`` to ``week_4``, and of the ``four_weeks`` together; the truth lies
    within as often as ``interval_coverage`` says. The four weeks are ours.
    """

    user_id: str | None = None
    prediction_date: Moment
    total_predicted: Annotated[Number, Field(ge=0)]
    category_predictions: dict[str, Number]
    confidence_intervals: dict[str, Interval]
    previous_accuracy: Number | None = None
    total_predicted_4_weeks: Annotated[Number, Field(ge=0)] | None = None
    weekly_predictions: list[Number] = Field(default_factory=list)
    interval_coverage: Ratio | None = None
