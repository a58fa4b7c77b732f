"""The four models pass the checks that every model package passes."""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from collections.abc import Sequence
from typing import Any

from fincoach_events.events import (
    AnyBehavioralEvent,
    PageViewed,
    RecommendationInteraction,
    RecommendationInteractionType,
)
from modelkit.conformance import ModelConformance
from modelkit.training.interface import Snapshot
from tests.goal_factories import budgets
from tests.recommendation_factories import BEGIN, served
from tests.recommendation_factories import snapshot_of as snapshot_of_served
from tests.training_factories import shop_history, snapshot_of

USERS = 30
ANSWERS: Sequence[RecommendationInteractionType] = ("click", "dismiss", "implement", "helpful", "not_helpful")


@functools.cache
def shop() -> Sequence[AnyBehavioralEvent]:
    """Return a shop's purchases."""
    return shop_history(users=400, weeks=40)


@functools.cache
def savers() -> Sequence[AnyBehavioralEvent]:
    """Return monthly budgets and how they ended."""
    return budgets(users=80, months=8)


@functools.cache
def feedback() -> Sequence[AnyBehavioralEvent]:
    """Return recommendations that were shown and answered, some of them twice, and pages that were read."""
    events: list[AnyBehavioralEvent] = []
    for number in range(10 * USERS):
        common: dict[str, Any] = {"user_id": uuid.UUID(int=number % USERS + 1), "consent": True, "source": "test"}
        moment = BEGIN + dt.timedelta(hours=number)
        shown = {**common, "recommendation_id": f"r{number}"}
        events += [
            RecommendationInteraction(event_id=uuid.UUID(int=3 * number), occurred_at=moment, interaction_type="view", **shown),
            RecommendationInteraction(
                event_id=uuid.UUID(int=3 * number + 1), occurred_at=moment + dt.timedelta(minutes=1),
                interaction_type=ANSWERS[number % len(ANSWERS)], **shown,
            ),
            PageViewed(
                event_id=uuid.UUID(int=3 * number + 2), occurred_at=moment + dt.timedelta(minutes=2), page_url="/", duration_seconds=5.0, **common
            ),
        ]  # fmt: skip
    return events


class TestSpending(ModelConformance):
    """Spending, on a shop's purchases."""

    model_type = "spending"
    events = staticmethod(shop)

    @classmethod
    def snapshot(cls) -> Snapshot:
        """Return the purchases, cleaned as in a training."""
        return snapshot_of(shop())


class TestSegmentation(TestSpending):
    """Segmentation, on the same purchases."""

    model_type = "segmentation"


class TestGoal(ModelConformance):
    """Goals, on budgets that end as they were spent."""

    model_type = "goal"
    events = staticmethod(savers)

    @classmethod
    def snapshot(cls) -> Snapshot:
        """Return the budgets, cleaned as in a training."""
        return snapshot_of(savers())


class TestRecommendation(ModelConformance):
    """Recommendations, on served ones whose truth is known."""

    model_type = "recommendation"
    events = staticmethod(feedback)

    @classmethod
    def snapshot(cls) -> Snapshot:
        """Return what was served and what came back."""
        return snapshot_of_served(served(2_000, seed=1))
