"""The small population produces consistent data, so it closes no quality gate."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter, defaultdict
from uuid import UUID

import numpy as np

from backends.clock import ManualClock
from fincoach_events.events import (
    AnyBehavioralEvent,
    BehavioralEvent,
    GoalModified,
    RecommendationInteraction,
    TransactionCreated,
)
from models.segmentation.dataset import SUFFICIENT_TRANSACTIONS
from schemas.vocabulary import FEEDBACK_INTERACTIONS, GOAL_OUTCOMES
from tests.chaos.producers.population import Population

NOON = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)


def lived(count: int = 8_000, *, users: int = 100) -> dict[UUID, list[AnyBehavioralEvent]]:
    """Return each user's events in order, under a clock that does not advance."""
    population = Population(np.random.default_rng(1), name="test", users=users, now=ManualClock(NOON).now)
    found: dict[UUID, list[AnyBehavioralEvent]] = defaultdict(list)
    for _ in range(count):
        event = population.next()
        found[event.user_id].append(event)
    return found


def of(events: list[AnyBehavioralEvent], kind: type[BehavioralEvent]) -> list[AnyBehavioralEvent]:
    """Return the events of one type."""
    return [event for event in events if isinstance(event, kind)]


def test_a_users_time_runs_forward() -> None:
    """The time of each user only moves forward."""
    for events in lived().values():
        times = [event.occurred_at for event in events]
        assert all(first < second for first, second in itertools.pairwise(times))


def test_balances_follow_from_amounts() -> None:
    """Each balance follows from the previous one and the amount."""
    for events in lived().values():
        purse = [event for event in events if isinstance(event, TransactionCreated)]
        for before, after in itertools.pairwise(purse):
            signed = after.amount_minor if after.transaction_type == "credit" else -after.amount_minor
            assert before.balance_after_minor is not None
            assert before.balance_after_minor + signed == after.balance_after_minor


def test_what_must_come_first_comes_first() -> None:
    """A recommendation is seen before it is answered, and a goal is created before it ends."""
    for events in lived().values():
        seen: set[str] = set()
        made: set[str] = set()
        for event in events:
            if isinstance(event, RecommendationInteraction):
                assert (event.interaction_type == "view") == (event.recommendation_id not in seen)
                seen.add(event.recommendation_id)
            elif isinstance(event, GoalModified):
                assert (event.interaction_type == "create") == (event.goal_id not in made)
                made.add(event.goal_id)


def test_every_model_gets_data_and_new_users_keep_coming() -> None:
    """Every model gets data, and new users keep coming."""
    users = lived()
    events = [event for lives in users.values() for event in lives]
    kinds = Counter(type(event).__name__ for event in events)
    assert len(kinds) == 5
    enough = sum(len(of(lives, TransactionCreated)) >= SUFFICIENT_TRANSACTIONS for lives in users.values())
    answers = sum(
        isinstance(event, RecommendationInteraction) and event.interaction_type in FEEDBACK_INTERACTIONS
        for event in events
    )
    outcomes = sum(isinstance(event, GoalModified) and event.interaction_type in GOAL_OUTCOMES for event in events)
    assert (enough > 150, answers > 500, outcomes > 150) == (True, True, True)
    assert 0.9 < sum(event.consent for event in events) / len(events) < 1.0
