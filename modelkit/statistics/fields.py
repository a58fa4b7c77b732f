"""What an event's own fields tell: whether what is expected is there, and whether a value cannot be. Pure.

What breaks the contract never comes here: it is a dead letter. Here is what the contract leaves open, because a host may
commit it; it is archived, counted, and lowers completeness or validity. Nothing here compares events with each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from fincoach_events.events import GoalModified, RecommendationInteraction, TransactionCreated

UNKNOWN_WORDS = frozenset({"", "unknown", "none", "null", "n/a", "undefined"})
# ISO 4217 keeps them for "no currency" and for tests.
NO_CURRENCIES = frozenset({"XXX", "XTS"})
# A goal may be overshot; who sends 45 for 45 % is beyond this from 3 % on.
MOST_PROGRESS = 2.0

# A transaction's optional fields: expected where at least half of a data set's events have them, so that a source that
# never knows a merchant is not blamed for it, and one that loses its merchants is.
OPTIONAL_FIELDS = ("merchant", "country", "balance_after_minor")
EXPECTED_FROM_SHARE = 0.5


def says_nothing(category: str) -> bool:
    """Say whether a category is one of the words for "I do not know"."""
    return category.strip().lower() in UNKNOWN_WORDS


def expected_and_filled(filled: Mapping[str, int], events: int) -> tuple[int, int]:
    """Return how many optional fields ``events`` events should have filled, and how many they have."""
    usual = [count for count in filled.values() if count >= EXPECTED_FROM_SHARE * events]
    return len(usual) * events, sum(usual)


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


def is_linked(event: RecommendationInteraction) -> bool:
    """Say whether it can be found out what was shown: by our prediction, or by the action of a foreign log."""
    return event.prediction_id is not None or event.action is not None


def transaction_out_of_range(event: TransactionCreated) -> bool:
    """A transaction that moves nothing, or that is in no currency."""
    return event.amount_minor == 0 or event.currency in NO_CURRENCIES


def recommendation_out_of_range(event: RecommendationInteraction) -> bool:
    """What was shown had a chance of being shown."""
    return event.propensity == 0.0


def goal_out_of_range(event: GoalModified) -> bool:
    """A goal that ends before it is created, is in no currency, or is further than a goal can be."""
    if event.progress is not None and event.progress > MOST_PROGRESS:
        return True
    if event.currency in NO_CURRENCIES:
        return True
    return event.interaction_type == "create" and event.due_at is not None and event.due_at < event.occurred_at
