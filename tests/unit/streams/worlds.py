"""Small values for tests of the streams service."""

from __future__ import annotations

import datetime as dt
import uuid

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    RecommendationInteraction,
    TransactionCreated,
    encode_event,
)
from modelkit.statistics.events import FoldedEvent

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def user(number: int = 0) -> uuid.UUID:
    """Return user ``number``."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"user-{number}")


def paid(amount_minor: int = 1_000, **changes: object) -> TransactionCreated:
    """Return a transaction."""
    fields: dict[str, object] = {
        "event_id": uuid.uuid4(), "user_id": user(), "occurred_at": NOON, "consent": True, "amount_minor": amount_minor,
        "currency": "USD", "category": "groceries", "transaction_type": "debit",
    }  # fmt: skip
    return TransactionCreated(**{**fields, **changes})  # type: ignore[arg-type]


def answered(interaction: str = "click", **changes: object) -> RecommendationInteraction:
    """Return a view of, or an answer to, a recommendation of ours."""
    fields: dict[str, object] = {
        "event_id": uuid.uuid4(), "user_id": user(), "occurred_at": NOON, "consent": True, "recommendation_id": "7",
        "interaction_type": interaction, "prediction_id": uuid.uuid4(),
    }  # fmt: skip
    return RecommendationInteraction(**{**fields, **changes})  # type: ignore[arg-type]


def aimed(interaction: str = "create", **changes: object) -> GoalModified:
    """Return a step of a goal."""
    fields: dict[str, object] = {
        "event_id": uuid.uuid4(), "user_id": user(), "occurred_at": NOON, "consent": True, "goal_id": "trip",
        "interaction_type": interaction, "goal_kind": "savings",
    }  # fmt: skip
    return GoalModified(**{**fields, **changes})  # type: ignore[arg-type]


def looked(**changes: object) -> PageViewed:
    """Return a page view."""
    fields: dict[str, object] = {
        "event_id": uuid.uuid4(), "user_id": user(), "occurred_at": NOON, "consent": True, "page_url": "/",
    }  # fmt: skip
    return PageViewed(**{**fields, **changes})  # type: ignore[arg-type]


def folded(event: AnyBehavioralEvent, *, before: int = 0, age: float = 0.0, findings: int = 0) -> FoldedEvent:
    """Return ``event`` as its batch knows it."""
    return FoldedEvent(event, age, before, before + isinstance(event, TransactionCreated), findings)


class FetchedEvent:
    """A record as the reader gives it, appended a second after it happened."""

    def __init__(
        self, event: AnyBehavioralEvent, *, offset: int = 0, raw: bytes | None = None, key: bytes | None = None
    ) -> None:
        self.offset = offset
        self.timestamp = int(NOON.timestamp() * 1000) + 1_000
        self.key: bytes | None = key if key is not None else str(event.user_id).encode()
        self.value: bytes | None = raw if raw is not None else encode_event(event)
        self.headers: list[tuple[str, bytes | None]] = []
