"""Realistic behavioural events from a seed: five types, heavy and light users, payloads of usual size. Pure."""

from __future__ import annotations

import collections
import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
)

USERS = 20_000
SEED = 7
_REPEATED_WITHIN = 5_000
# Shares of the types in the order of _BUILDERS: mostly transactions and pages, few answers, fewer goals.
_SHARES = (0.45, 0.25, 0.15, 0.12, 0.03)
_CATEGORIES = ("groceries", "transport", "health", "dine_out", "rent", "utilities", "travel", "clothes")
_ANSWERS = ("click", "click", "dismiss", "implement", "helpful", "not_helpful")
_PURCHASES = ("view", "view", "add_to_cart", "purchase", "remove_from_cart")
_GOALS = ("create", "update", "update", "achieve", "fail")


def behavioral_events(count: int, *, ends_at: dt.datetime, seed: int = SEED) -> Iterator[AnyBehavioralEvent]:
    """Yield ``count`` events in order of time, ten per second, the last one a minute before ``ends_at``."""
    generator = np.random.default_rng(seed)
    kinds = generator.choice(len(_SHARES), size=count, p=_SHARES)
    # Squared, so that a tenth of the users has a third of the events.
    who = (generator.random(count) ** 2 * USERS).astype(int)
    begins_at = ends_at - dt.timedelta(minutes=1, seconds=count / 10)
    unanswered: RecommendationInteraction | None = None
    for number, (kind, user) in enumerate(zip(kinds.tolist(), who.tolist(), strict=True)):
        occurred_at = begins_at + dt.timedelta(seconds=number / 10)
        envelope: dict[str, Any] = {
            "event_id": _identifier(generator, occurred_at),
            "user_id": uuid.uuid5(uuid.NAMESPACE_OID, f"bench-user-{user}"),
            "occurred_at": occurred_at,
            "consent": True,
            "source": "bench",
            "session_id": f"session-{user}-{number // 5_000}",
        }
        event = _BUILDERS[kind](envelope, generator)
        if isinstance(event, RecommendationInteraction):
            event = _about(event, unanswered)
            unanswered = event if unanswered is None else None
        yield event


def _about(event: RecommendationInteraction, shown: RecommendationInteraction | None) -> RecommendationInteraction:
    """Return ``event`` as the answer to ``shown``, or as a view if nothing was shown."""
    if shown is None:
        return msgspec.structs.replace(event, interaction_type="view")
    return msgspec.structs.replace(
        event, user_id=shown.user_id, session_id=shown.session_id, recommendation_id=shown.recommendation_id
    )


def with_repetitions(
    events: Iterable[AnyBehavioralEvent], *, share: float, seed: int = SEED
) -> Iterator[AnyBehavioralEvent]:
    """Yield ``events``; after a ``share`` of them, repeat an earlier one, as a producer does after a time-out."""
    generator = np.random.default_rng(seed)
    recent: collections.deque[AnyBehavioralEvent] = collections.deque(maxlen=_REPEATED_WITHIN)
    for event in events:
        yield event
        recent.append(event)
        if generator.random() < share:
            yield recent[int(generator.integers(len(recent)))]


def _identifier(generator: np.random.Generator, at: dt.datetime) -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562) like the producer's, so that index pages fill in the same order."""
    milliseconds = int(at.timestamp() * 1000)
    low, high = (int(part) for part in generator.integers(0, 2**62, size=2))
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0b10 << 62 | low)


def _transaction(envelope: dict[str, Any], generator: np.random.Generator) -> AnyBehavioralEvent:
    amount = int(generator.lognormal(7.5, 1.0))
    return TransactionCreated(
        **envelope,
        amount_minor=amount,
        currency="EUR",
        category=_choice(generator, _CATEGORIES),
        transaction_type="credit" if generator.random() < 0.1 else "debit",
        merchant=f"Merchant {amount % 400}",
        city="Utrecht",
        country="NL",
    )


def _page(envelope: dict[str, Any], generator: np.random.Generator) -> AnyBehavioralEvent:
    seconds = round(float(generator.exponential(30.0)), 1)
    return PageViewed(**envelope, page_url=f"/overview/{int(generator.integers(50))}", duration_seconds=seconds)


def _product(envelope: dict[str, Any], generator: np.random.Generator) -> AnyBehavioralEvent:
    return ProductInteraction(
        **envelope,
        product_id=f"product-{int(generator.integers(3_000))}",
        interaction_type=_choice(generator, _PURCHASES),
        quantity=1,
        unit_price_minor=int(generator.integers(100, 50_000)),
        currency="EUR",
    )


def _recommendation(envelope: dict[str, Any], generator: np.random.Generator) -> AnyBehavioralEvent:
    return RecommendationInteraction(
        **envelope,
        recommendation_id=f"recommendation-{int(generator.integers(1_000_000))}",
        interaction_type=_choice(generator, _ANSWERS),
        position=int(generator.integers(5)),
    )


def _goal(envelope: dict[str, Any], generator: np.random.Generator) -> AnyBehavioralEvent:
    return GoalModified(
        **envelope,
        goal_id=f"goal-{envelope['user_id']}",
        interaction_type=_choice(generator, _GOALS),
        goal_kind="savings",
        target_minor=int(generator.integers(10_000, 1_000_000)),
        currency="EUR",
        due_at=envelope["occurred_at"] + dt.timedelta(days=90),
        progress=round(float(generator.random()), 3),
    )


def _choice(generator: np.random.Generator, words: tuple[str, ...]) -> Any:  # noqa: ANN401 - one of a literal's words
    return words[int(generator.integers(len(words)))]


_BUILDERS = (_transaction, _page, _product, _recommendation, _goal)
