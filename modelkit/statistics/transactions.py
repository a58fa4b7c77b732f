"""What the fields of transactions tell: whether what is expected is there, and whether a value cannot be. Pure.

What breaks the contract never comes here: it is a dead letter. Here is what the contract leaves open, because a host may
commit it; it is archived, counted, and lowers completeness or validity. Nothing here compares events with each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fincoach_events.events import TransactionCreated
from modelkit.statistics.sketches import bounded_categories

UNKNOWN_WORDS = frozenset({"", "unknown", "none", "null", "n/a", "undefined"})
# ISO 4217 keeps them for "no currency" and for tests.
NO_CURRENCIES = frozenset({"XXX", "XTS"})

# A transaction's optional fields: expected where at least half of a data set's events have them, so that a source that
# never knows a merchant is not blamed for it, and one that loses its merchants is.
OPTIONAL_FIELDS = ("merchant", "country", "balance_after_minor")
EXPECTED_FROM_SHARE = 0.5


class TransactionFields(NamedTuple):
    """What the fields of some transactions tell.

    ``present``: how many say a category; ``out_of_range``: how many move nothing or are in no currency;
    ``categories``: transactions by category, bounded; ``filled``: how many have each of :data:`OPTIONAL_FIELDS`.
    """

    present: int
    out_of_range: int
    categories: dict[str, int]
    filled: dict[str, int]
    amounts: list[int]


def transaction_fields(transactions: Sequence[TransactionCreated]) -> TransactionFields:
    """Return what the fields of ``transactions`` tell."""
    categories = Counter([event.category for event in transactions])
    amounts = [event.amount_minor for event in transactions]
    vague = sum(count for category, count in categories.items() if says_nothing(category))
    is_suspect = 0 in amounts or not NO_CURRENCIES.isdisjoint([event.currency for event in transactions])
    return TransactionFields(
        present=len(transactions) - vague,
        out_of_range=sum(map(transaction_out_of_range, transactions)) if is_suspect else 0,
        categories=bounded_categories(categories),
        filled={name: _filled(transactions, name) for name in OPTIONAL_FIELDS},
        amounts=amounts,
    )


def says_nothing(category: str) -> bool:
    """Say whether a category is one of the words for "I do not know"."""
    return category.strip().lower() in UNKNOWN_WORDS


def transaction_out_of_range(event: TransactionCreated) -> bool:
    """Say whether a transaction moves nothing, or is in no currency."""
    return event.amount_minor == 0 or event.currency in NO_CURRENCIES


def expected_and_filled(filled: Mapping[str, int], events: int) -> tuple[int, int]:
    """Return how many optional fields ``events`` events should have filled, and how many they have."""
    usual = [count for count in filled.values() if count >= EXPECTED_FROM_SHARE * events]
    return len(usual) * events, sum(usual)


def _filled(transactions: Sequence[TransactionCreated], name: str) -> int:
    return len(transactions) - [getattr(event, name) for event in transactions].count(None)
