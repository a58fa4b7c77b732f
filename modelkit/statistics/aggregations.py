"""The plan's four aggregations: what the new events of one batch add to each model's data set. Pure.

Each takes the events of its own type, already archived and folded, and returns statistics that merge. What
counts towards the threshold: recommendation: answers (click, dismiss, implement, helpful, not_helpful);
segmentation: users whose history became sufficient; spending: transactions; goal: goals achieved or failed.
Views without an answer and time on a page are kept apart: they belong to the recommendation set and never count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    RecommendationInteraction,
    TransactionCreated,
)
from modelkit.statistics.consistency import ANY_CONTRADICTION, CONTRADICTIONS, FIRST_ANSWER
from modelkit.statistics.fields import (
    NO_CURRENCIES,
    OPTIONAL_FIELDS,
    goal_fields,
    goal_out_of_range,
    is_linked,
    recommendation_out_of_range,
    says_nothing,
    transaction_out_of_range,
)
from modelkit.statistics.sketches import (
    HORIZON_SECONDS,
    DatasetStatistics,
    Histogram,
    bounded_categories,
    bounded_heaviest,
    bounded_sources,
    histogram,
    merged,
    user_sketch,
)
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import FEEDBACK_INTERACTIONS, GOAL_OUTCOMES, SUFFICIENT_TRANSACTIONS, ModelType

LONGEST_READING_SECONDS = 1_800  # a page that was left open is not read
SECONDS_PER_DAY = 86_400

# Which data sets the events of a type belong to; the other types are archived and folded, and belong to none.
DATASETS_OF_EVENT_TYPE: dict[str, tuple[ModelType, ...]] = {
    "recommendation_interaction": (ModelType.RECOMMENDATION,),
    "transaction_creation": (ModelType.SPENDING, ModelType.SEGMENTATION),
    "goal_modification": (ModelType.GOAL,),
}


class FoldedEvent(NamedTuple):
    """A new event with what its batch knows about it.

    ``age_seconds``: how far it lies behind the watermark of its source; ``transactions_before`` and
    ``transactions_after``: the user's transactions around it; ``findings``: what the user's state says of it, as bits
    (:mod:`modelkit.statistics.consistency`).
    """

    event: AnyBehavioralEvent
    age_seconds: float
    transactions_before: int
    transactions_after: int
    findings: int


def aggregate_recommendation_feedback(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what recommendation interactions add: answers count, views belong to the set without counting."""
    interactions = cast("list[RecommendationInteraction]", [folded.event for folded in events])
    answers = [event for event in interactions if event.interaction_type in FEEDBACK_INTERACTIONS]
    counts = {
        "counted": len(answers),
        "fields_expected": len(interactions),
        "fields_present": sum(map(is_linked, interactions)),
        "out_of_range": sum(map(recommendation_out_of_range, interactions)),
        "views": len(interactions) - len(answers),
        "views_answered": sum(folded.findings & FIRST_ANSWER != 0 for folded in events),
    }
    return msgspec.structs.replace(
        _of_any_type(events, counts, Counter([event.user_id.int for event in interactions])),
        categories=bounded_categories(Counter(event.interaction_type for event in answers)),
        heaviest=_heaviest(Counter([event.user_id.int for event in answers])),
    )


def aggregate_user_transactions(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what transactions add to the spending model's set: each one counts."""
    transactions = cast("list[TransactionCreated]", [folded.event for folded in events])
    users = Counter([event.user_id.int for event in transactions])
    categories = Counter([event.category for event in transactions])
    amounts = [event.amount_minor for event in transactions]
    vague = sum(count for category, count in categories.items() if says_nothing(category))
    is_suspect = 0 in amounts or not NO_CURRENCIES.isdisjoint([event.currency for event in transactions])
    counts = {
        "counted": len(transactions),
        "fields_expected": len(transactions),
        "fields_present": len(transactions) - vague,
        "out_of_range": sum(map(transaction_out_of_range, transactions)) if is_suspect else 0,
    }
    return msgspec.structs.replace(
        _of_any_type(events, counts, users),
        categories=bounded_categories(categories),
        filled={name: _filled(transactions, name) for name in OPTIONAL_FIELDS},
        heaviest=_heaviest(users),
        values={"amount_minor": histogram(amounts)},
    )


def aggregate_user_segments(
    events: Sequence[FoldedEvent], spending: DatasetStatistics | None = None
) -> DatasetStatistics:
    """Return what transactions add to the segmentation model's set: a user counts once, with the transaction that suffices.

    All else is what they add to the spending set; where that is at hand as ``spending`` it is not made again.
    """
    basis = spending or aggregate_user_transactions(events)
    crossed = [event.user_id.int for event, _, before, after, _ in events if before < SUFFICIENT_TRANSACTIONS <= after]
    counts = msgspec.structs.replace(basis.counts, counted=len(crossed))
    return msgspec.structs.replace(basis, counts=counts, heaviest=_heaviest(Counter(crossed)))


def aggregate_goal_events(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what goal events add: goals achieved or failed count."""
    goals = cast("list[GoalModified]", [folded.event for folded in events])
    outcomes = [event for event in goals if event.interaction_type in GOAL_OUTCOMES]
    fields = [goal_fields(event) for event in goals]
    counts = {
        "counted": len(outcomes),
        "fields_expected": sum(expected for expected, _ in fields),
        "fields_present": sum(filled for _, filled in fields),
        "out_of_range": sum(map(goal_out_of_range, goals)),
    }
    targets = [event.target_minor for event in goals if event.target_minor is not None]
    return msgspec.structs.replace(
        _of_any_type(events, counts, Counter([event.user_id.int for event in goals])),
        categories=bounded_categories(Counter(event.interaction_type for event in outcomes)),
        heaviest=_heaviest(Counter([event.user_id.int for event in outcomes])),
        values=_named(target_minor=histogram(targets), due_days=histogram(_days_given(goals))),
    )


def aggregate_page_views(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what page views that say how long they lasted add to the recommendation set: implicit feedback, and no answer."""
    views = cast("list[PageViewed]", [folded.event for folded in events])
    seconds = [event.duration_seconds for event in views if event.duration_seconds is not None]
    read = sum(round(min(duration, LONGEST_READING_SECONDS)) for duration in seconds)
    return DatasetStatistics(counts=DatasetCounts(page_views=len(seconds), page_seconds=read))


def aggregate_by_model(by_type: Mapping[type[object], Sequence[FoldedEvent]]) -> dict[str, DatasetStatistics]:
    """Return what the events of a batch, sorted by their type, add to each data set that they belong to."""
    datasets: dict[str, DatasetStatistics] = {}
    if interactions := by_type.get(RecommendationInteraction):
        datasets[ModelType.RECOMMENDATION] = aggregate_recommendation_feedback(interactions)
    if transactions := by_type.get(TransactionCreated):
        spending = aggregate_user_transactions(transactions)
        datasets[ModelType.SPENDING] = spending
        datasets[ModelType.SEGMENTATION] = aggregate_user_segments(transactions, spending)
    if goals := by_type.get(GoalModified):
        datasets[ModelType.GOAL] = aggregate_goal_events(goals)
    if (pages := by_type.get(PageViewed)) and (read := aggregate_page_views(pages)).counts.page_views:
        datasets[ModelType.RECOMMENDATION] = merged(datasets.get(ModelType.RECOMMENDATION, DatasetStatistics()), read)
    return datasets


def refused(*, invalid: int, missing: int) -> DatasetStatistics:
    """Return what ``invalid`` dead letters of a data set's type add, ``missing`` of them for want of a field."""
    return DatasetStatistics(counts=DatasetCounts(invalid=invalid, missing=missing, fields_expected=missing))


def _of_any_type(
    events: Sequence[FoldedEvent], counts: Mapping[str, int], users: Mapping[int, int]
) -> DatasetStatistics:
    """Return what every data set's statistics hold; ``counts`` are those that its type alone knows."""
    found = Counter([folded.findings for folded in events])
    contradictions = {
        name: sum(count for bits, count in found.items() if bits & bit) for name, bit in CONTRADICTIONS.items()
    }
    ages = [folded.age_seconds for folded in events]
    return DatasetStatistics(
        counts=DatasetCounts(
            relevant=len(events),
            missing=counts["fields_expected"] - counts["fields_present"],
            inconsistent=sum(count for bits, count in found.items() if bits & ANY_CONTRADICTION),
            **contradictions,
            **counts,
        ),
        fresh=sum(age <= HORIZON_SECONDS for age in ages) if max(ages) > HORIZON_SECONDS else len(ages),
        tiers=_tiers([folded.transactions_after for folded in events]),
        users=user_sketch(users),
        ages=_by_source([folded.event.source for folded in events], ages),
    )


def _by_source(sources: Sequence[str], ages: Sequence[float]) -> dict[str, Histogram]:
    if len(set(sources)) == 1:
        return {sources[0]: histogram(ages)}
    by_source: dict[str, list[float]] = defaultdict(list)
    for source, age in zip(sources, ages, strict=True):
        by_source[source].append(age)
    return bounded_sources({source: histogram(found) for source, found in by_source.items()})


def _tiers(transactions: Sequence[int]) -> dict[int, int]:
    tiers: Counter[int] = Counter()
    for number, count in Counter(transactions).items():
        tiers[number.bit_length()] += count
    return dict(tiers)


def _filled(transactions: Sequence[TransactionCreated], name: str) -> int:
    return len(transactions) - [getattr(event, name) for event in transactions].count(None)


def _days_given(goals: Iterable[GoalModified]) -> list[float]:
    """Return how many days new goals have until they are due."""
    return [
        (event.due_at - event.occurred_at).total_seconds() / SECONDS_PER_DAY
        for event in goals
        if event.interaction_type == "create" and event.due_at is not None and event.due_at >= event.occurred_at
    ]


def _named(**values: Histogram) -> dict[str, Histogram]:
    return {name: found for name, found in values.items() if found}


def _heaviest(users: Mapping[int, int]) -> dict[bytes, int]:
    return bounded_heaviest({user.to_bytes(16): count for user, count in users.items()})
