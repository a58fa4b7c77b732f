"""The answer, in the host application's own shape."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.api import Interval, Moment, Number, ServedShape


class SpendingPrediction(ServedShape):
    """What a user will spend in a week, in major units of the currency, with intervals as [lower, upper]."""

    user_id: str | None = None
    prediction_date: Moment
    total_predicted: Annotated[Number, Field(ge=0)]
    category_predictions: dict[str, Number]
    confidence_intervals: dict[str, Interval]
    previous_accuracy: Number | None = None
