"""The row of the segmentation model: recency, frequency, monetary value and engagement over a user's life. Pure.

Lifetime aggregates are those of the state: ``as_of`` enters only as the distance to it.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt

from modelkit.features.state import MILLISECONDS_PER_DAY, MINOR_PER_MAJOR, UserState, milliseconds

SEGMENTATION_FEATURES = (
    "recency_days",
    "frequency",
    "monetary_mean",
    "monetary_sum",
    "tenure_days",
    "days_between_debits",
    "distinct_categories",
    "top_category_share",
    "credit_share",
    "feedback_given",
    "feedback_positive_share",
    "page_views",
    "products_bought",
    "goals_decided",
    "goals_achieved_share",
)
RECENCY_OF_NOBODY_DAYS = 3_650.0


def segmentation_features(state: UserState | None, as_of: dt.datetime) -> npt.NDArray[np.float32]:
    """Return the row at ``as_of`` in the order of :data:`SEGMENTATION_FEATURES`, shape (15,)."""
    known = state if state is not None else UserState()
    now = milliseconds(as_of)
    return np.array([*_purchases(known, now), *_engagement(known)], dtype=np.float32)


def _purchases(state: UserState, now: int) -> list[float]:
    spent = state.debit_minor / MINOR_PER_MAJOR
    debits = state.debits
    tenure = max(0.0, (now - state.first_at) / MILLISECONDS_PER_DAY) if state.last_at else 0.0
    recency = max(0.0, (now - state.last_debit_at) / MILLISECONDS_PER_DAY) if debits else RECENCY_OF_NOBODY_DAYS
    distinct = sum(amount > 0 for amount in state.category_minor)
    top = max(state.category_minor) / state.debit_minor if state.debit_minor else 0.0
    return [
        recency,
        debits,
        _ratio(spent, debits),
        spent,
        tenure,
        _ratio(tenure, debits),
        distinct,
        top,
        _ratio(state.credits, state.transactions),
    ]


def _engagement(state: UserState) -> list[float]:
    _, click, dismiss, implement, helpful, not_helpful = state.feedback
    given = click + dismiss + implement + helpful + not_helpful
    decided = state.goals_achieved + state.goals_failed
    return [
        given,
        _ratio(click + implement + helpful, given),
        state.page_views,
        state.products[2],
        decided,
        _ratio(state.goals_achieved, decided),
    ]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
