"""The plan's four aggregations: what the new events of one batch add to each model's data set. Pure.

Each takes the events of its own type, already archived and folded, and returns statistics that merge. What
counts towards the threshold: recommendation: answers (click, dismiss, implement, helpful, not_helpful);
segmentation: users whose history became sufficient; spending: transactions; goal: goals achieved or failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from fincoach_events.events import GoalModified, RecommendationInteraction, TransactionCreated
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import FEEDBACK_INTERACTIONS, GOAL_OUTCOMES, SUFFICIENT_TRANSACTIONS, ModelType
from streams.sketches import DatasetStatistics, bounded_categories, bounded_heaviest, quantile_sketch, user_sketch

# Within it an event is fresh: the window over which the host computes its behavioural features.
FRESHNESS_HORIZON_SECONDS = 30 * 86_400
UNKNOWN_WORDS = frozenset({"", "unknown", "none", "null", "n/a", "undefined"})

# Which data sets the events of a type belong to; the other types are archived and folded, and belong to none.
DATASETS_OF_EVENT_TYPE: dict[str, tuple[ModelType, ...]] = {
    "recommendation_interaction": (ModelType.RECOMMENDATION,),
    "transaction_creation": (ModelType.SPENDING, ModelType.SEGMENTATION),
    "goal_modification": (ModelType.GOAL,),
}
# How many fields an event of a data set must have filled to be worth all it could be.
EXPECTED_FIELDS: dict[ModelType, int] = {
    ModelType.RECOMMENDATION: 3,
    ModelType.SEGMENTATION: 4,
    ModelType.SPENDING: 4,
    ModelType.GOAL: 3,
}


class FoldedEvent(NamedTuple):
    """A new event with what its batch knows about it.

    ``age_seconds``: how far it lies behind the watermark of its source; ``transactions_before`` and
    ``transactions_after``: the user's transactions around it; ``inconsistent``: it contradicts the user's state.
    """

    event: object
    age_seconds: float
    transactions_before: int
    transactions_after: int
    inconsistent: bool


def aggregate_recommendation_feedback(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what recommendation interactions add: answers count, views belong to the set without counting."""
    interactions = [folded.event for folded in events if isinstance(folded.event, RecommendationInteraction)]
    answers = [event for event in interactions if event.interaction_type in FEEDBACK_INTERACTIONS]
    return _statistics(
        ModelType.RECOMMENDATION,
        events,
        counted=[event.user_id for event in answers],
        present=_total(interactions, _feedback_fields),
        categories=[event.interaction_type for event in answers],
        users={event.user_id.hex for event in interactions},
    )


def aggregate_user_transactions(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what transactions add to the spending model's set: each one counts."""
    transactions = _transactions(events)
    return _statistics(
        ModelType.SPENDING,
        events,
        counted=[event.user_id for event in transactions],
        present=_total(transactions, _transaction_fields),
        categories=[event.category for event in transactions],
        users={event.user_id.hex for event in transactions},
        values=[float(event.amount_minor) for event in transactions],
    )


def aggregate_user_segments(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what transactions add to the segmentation model's set: a user counts once, with the transaction that suffices."""
    transactions = _transactions(events)
    crossed = [
        event.user_id
        for event, folded in zip(transactions, events, strict=True)
        if folded.transactions_before < SUFFICIENT_TRANSACTIONS <= folded.transactions_after
    ]
    return _statistics(
        ModelType.SEGMENTATION,
        events,
        counted=crossed,
        present=_total(transactions, _transaction_fields),
        categories=[event.category for event in transactions],
        users={event.user_id.hex for event in transactions},
        values=[float(event.amount_minor) for event in transactions],
    )


def aggregate_goal_events(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what goal events add: goals achieved or failed count."""
    goals = [folded.event for folded in events if isinstance(folded.event, GoalModified)]
    outcomes = [event for event in goals if event.interaction_type in GOAL_OUTCOMES]
    return _statistics(
        ModelType.GOAL,
        events,
        counted=[event.user_id for event in outcomes],
        present=_total(goals, _goal_fields),
        categories=[event.interaction_type for event in outcomes],
        users={event.user_id.hex for event in goals},
        values=[float(event.target_minor) for event in goals if event.target_minor is not None],
    )


Aggregation = Callable[[Sequence[FoldedEvent]], DatasetStatistics]
AGGREGATIONS: dict[ModelType, tuple[type[object], Aggregation]] = {
    ModelType.RECOMMENDATION: (RecommendationInteraction, aggregate_recommendation_feedback),
    ModelType.SEGMENTATION: (TransactionCreated, aggregate_user_segments),
    ModelType.SPENDING: (TransactionCreated, aggregate_user_transactions),
    ModelType.GOAL: (GoalModified, aggregate_goal_events),
}


def refused(model_type: ModelType, *, invalid: int, missing: int) -> DatasetStatistics:
    """Return what ``invalid`` dead letters of a data set's type add, ``missing`` of them for want of a field."""
    expected = EXPECTED_FIELDS[model_type] * missing
    counts = DatasetCounts(
        invalid=invalid, missing=missing, fields_expected=expected, fields_present=expected - missing
    )
    return DatasetStatistics(counts=counts)


def _statistics(  # noqa: PLR0913 - the parts of one value
    model_type: ModelType,
    events: Sequence[FoldedEvent],
    *,
    counted: Sequence[UUID],
    present: int,
    categories: Iterable[str],
    users: set[str],
    values: Sequence[float] = (),
) -> DatasetStatistics:
    expected = EXPECTED_FIELDS[model_type] * len(events)
    return DatasetStatistics(
        counts=DatasetCounts(
            counted=len(counted),
            relevant=len(events),
            missing=expected - present,
            inconsistent=sum(folded.inconsistent for folded in events),
            fields_expected=expected,
            fields_present=present,
        ),
        fresh=sum(folded.age_seconds <= FRESHNESS_HORIZON_SECONDS for folded in events),
        categories=bounded_categories(Counter(categories)),
        heaviest=bounded_heaviest(Counter(user_id.bytes for user_id in counted)),
        users=user_sketch(users),
        ages_seconds=quantile_sketch([folded.age_seconds for folded in events]),
        values_minor=quantile_sketch(values),
    )


def _transactions(events: Sequence[FoldedEvent]) -> list[TransactionCreated]:
    return [folded.event for folded in events if isinstance(folded.event, TransactionCreated)]


def _total(events: Sequence[object], fields: Callable[[object], int]) -> int:
    return sum(map(fields, events))


def _feedback_fields(event: object) -> int:
    """Filled: identity, interaction, and which answer of ours (or which logged action) it is about."""
    linked = getattr(event, "prediction_id", None) or getattr(event, "action", None)
    return 2 + (linked is not None)


def _transaction_fields(event: object) -> int:
    """Filled: amount, currency and type are required; a category that says nothing counts as missing."""
    return 3 + (getattr(event, "category", "").strip().lower() not in UNKNOWN_WORDS)


def _goal_fields(event: object) -> int:
    """Filled: identity and interaction are required; a new goal should say what it wants or by when."""
    vague = getattr(event, "interaction_type", "") == "create" and not any(
        getattr(event, name, None) is not None for name in ("target_minor", "due_at", "goal_kind")
    )
    return 3 - vague
