"""What an event's own fields tell."""

from __future__ import annotations

import datetime as dt

import pytest

from fincoach_events.events import AnyBehavioralEvent, GoalModified, RecommendationInteraction, TransactionCreated
from modelkit.statistics.transactions import (
    expected_and_filled,
    says_nothing,
    transaction_out_of_range,
)
from models.goal import dataset as goal
from models.recommendation import dataset as recommendation
from tests.unit.streams.worlds import NOON, aimed, answered, paid

HOUR = dt.timedelta(hours=1)


def is_out_of_range(event: AnyBehavioralEvent) -> bool:
    """Say whether a value of ``event`` cannot be."""
    if isinstance(event, TransactionCreated):
        return transaction_out_of_range(event)
    if isinstance(event, RecommendationInteraction):
        return recommendation.is_out_of_range(event)
    assert isinstance(event, GoalModified)
    return goal.is_out_of_range(event)


@pytest.mark.parametrize(
    "event",
    [
        paid(0), paid(currency="XXX"), paid(currency="XTS"), answered("view", propensity=0.0), aimed("update", progress=45.0),
        aimed(due_at=NOON - HOUR), aimed(currency="XXX"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_out_of_range(event: AnyBehavioralEvent) -> None:
    """An impossible value is out of range."""
    assert is_out_of_range(event)


@pytest.mark.parametrize(
    "event",
    [
        paid(1), paid(10**12), paid(currency="JPY"), answered("view", propensity=1e-6), answered(), aimed("update", progress=1.2),
        aimed(due_at=NOON), aimed("update", due_at=NOON - HOUR), aimed(target_minor=0),
    ],
)  # fmt: skip
def test_what_a_host_may_commit_is_not_blamed(event: AnyBehavioralEvent) -> None:
    """Overshot goals, overdue updates and small chances are within range."""
    assert not is_out_of_range(event)


def test_fields_are_expected_where_they_are_usual() -> None:
    """A field is expected where its source usually fills it."""
    assert expected_and_filled({"merchant": 80, "country": 100, "balance_after_minor": 0}, 100) == (200, 180)
    assert expected_and_filled({"merchant": 50}, 100) == (100, 50)
    assert expected_and_filled({}, 100) == (0, 0)


@pytest.mark.parametrize(("category", "vague"), [(" Unknown ", True), ("", True), ("n/a", True), ("other", False)])
def test_words_for_not_knowing_are_known(category: str, vague: bool) -> None:  # noqa: FBT001 - a row of a table
    """The usual words for "unknown" count as an empty category."""
    assert says_nothing(category) is vague
