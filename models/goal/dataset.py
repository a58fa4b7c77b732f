"""What counts for goals: goals that were achieved or failed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import cast

from fincoach_events.events import GoalModified
from modelkit.statistics.dataset import DatasetDefinition
from modelkit.statistics.events import NewEvents, heaviest_of, statistics_of
from modelkit.statistics.sketches import DatasetStatistics, Histogram, bounded_categories, histogram
from modelkit.statistics.transactions import NO_CURRENCIES
from schemas.vocabulary import GOAL_OUTCOMES

SECONDS_PER_DAY = 86_400
# A goal may be overshot; a host that sends 45 for 45 % exceeds this from 3 % on.
MOST_PROGRESS = 2.0


def aggregate_goal_events(events: NewEvents) -> DatasetStatistics | None:
    """Return what a batch adds: outcomes count, other steps of a goal belong to the set; None without goal events."""
    folded = events.of(GoalModified)
    if not folded:
        return None
    goals = cast("list[GoalModified]", [item.event for item in folded])
    outcomes = [event for event in goals if event.interaction_type in GOAL_OUTCOMES]
    fields = [goal_fields(event) for event in goals]
    targets = [event.target_minor for event in goals if event.target_minor is not None]
    return statistics_of(
        folded,
        users=Counter([event.user_id.int for event in goals]),
        counts={
            "counted": len(outcomes),
            "fields_expected": sum(expected for expected, _ in fields),
            "fields_present": sum(filled for _, filled in fields),
            "out_of_range": sum(map(is_out_of_range, goals)),
        },
        categories=bounded_categories(Counter(event.interaction_type for event in outcomes)),
        heaviest=heaviest_of(Counter([event.user_id.int for event in outcomes])),
        values=_named(target_minor=histogram(targets), due_days=histogram(_days_given(goals))),
    )


def goal_fields(event: GoalModified) -> tuple[int, int]:
    """Return how many fields a step of a goal should have filled, and how many it has.

    A new goal says what it wants, what kind it is or by when; an update says how far it is or what changed. An end needs
    nothing.
    """
    if event.interaction_type == "create":
        is_clear = not (event.target_minor is None and event.due_at is None and event.goal_kind is None)
        return 1, int(is_clear)
    if event.interaction_type == "update":
        says_something = not (event.progress is None and event.score is None and event.target_minor is None)
        return 1, int(says_something)
    return 0, 0


def is_out_of_range(event: GoalModified) -> bool:
    """Say whether a goal ends before it is created, is in no currency, or is further than a goal can be."""
    if event.progress is not None and event.progress > MOST_PROGRESS:
        return True
    if event.currency in NO_CURRENCIES:
        return True
    return event.interaction_type == "create" and event.due_at is not None and event.due_at < event.occurred_at


def _days_given(goals: Iterable[GoalModified]) -> list[float]:
    """Return how many days new goals have until they are due."""
    return [
        (event.due_at - event.occurred_at).total_seconds() / SECONDS_PER_DAY
        for event in goals
        if event.interaction_type == "create" and event.due_at is not None and event.due_at >= event.occurred_at
    ]


def _named(**values: Histogram) -> dict[str, Histogram]:
    return {name: found for name, found in values.items() if found}


DATASET = DatasetDefinition(event_types=("goal_modification",), aggregate=aggregate_goal_events)
