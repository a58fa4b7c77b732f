"""The new events of one batch, and the statistics that every data set makes of them. Pure.

A model's own ``dataset.py`` builds on :func:`statistics_of`. What several models need of the same events, such as the
statistics of transactions, is made once a batch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from modelkit.statistics.consistency import ANY_CONTRADICTION, CONTRADICTIONS
from modelkit.statistics.sketches import (
    HORIZON_SECONDS,
    DatasetStatistics,
    Histogram,
    bounded_heaviest,
    bounded_sources,
    histogram,
    user_sketch,
)
from modelkit.statistics.transactions import transaction_fields
from schemas.messages.progress import DatasetCounts


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


class NewEvents:
    """The new events with consent of one batch, by their type and in the order of their offsets."""

    def __init__(self, folded: Sequence[FoldedEvent]) -> None:
        self._by_type: dict[type[object], list[FoldedEvent]] = defaultdict(list)
        for item in folded:
            self._by_type[type(item.event)].append(item)

    def of(self, event_type: type[AnyBehavioralEvent]) -> Sequence[FoldedEvent]:
        """Return the events of one type; empty where the batch has none."""
        return self._by_type.get(event_type, ())

    @cached_property
    def transactions(self) -> DatasetStatistics | None:
        """Return what transactions add to a data set in which each one counts; None without any."""
        events = self.of(TransactionCreated)
        return transaction_statistics(events) if events else None


def transaction_statistics(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what transactions (at least one) add to a data set in which each one counts."""
    transactions = cast("list[TransactionCreated]", [folded.event for folded in events])
    users = Counter([event.user_id.int for event in transactions])
    fields = transaction_fields(transactions)
    return statistics_of(
        events,
        users=users,
        counts={
            "counted": len(transactions),
            "fields_expected": len(transactions),
            "fields_present": fields.present,
            "out_of_range": fields.out_of_range,
        },
        categories=fields.categories,
        filled=fields.filled,
        heaviest=heaviest_of(users),
        values={"amount_minor": histogram(fields.amounts)},
    )


def statistics_of(
    events: Sequence[FoldedEvent],
    *,
    users: Mapping[int, int],
    counts: Mapping[str, int],
    **parts: Any,  # noqa: ANN401 - the fields of DatasetStatistics that only the model knows
) -> DatasetStatistics:
    """Return the statistics of at least one event of one type.

    ``users``: events by user (the UUID as an integer). ``counts``: the counters that only the model knows, of
    :class:`~schemas.messages.progress.DatasetCounts`; ``fields_expected`` and ``fields_present`` are among them.
    ``parts``: categories, filled, heaviest and values of :class:`~modelkit.statistics.sketches.DatasetStatistics`.
    """
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
        **parts,
    )


def heaviest_of(users: Mapping[int, int]) -> dict[bytes, int]:
    """Return how many counted events each user gave, bounded; users as integers become 16 bytes."""
    return bounded_heaviest({user.to_bytes(16): count for user, count in users.items()})


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
