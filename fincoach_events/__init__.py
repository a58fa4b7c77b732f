"""FinCoach's client for behavioural events: the event types, their validation, and the producer.

A host application installs this wheel alone. It knows nothing of the learning system behind the topic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fincoach_events.errors import (
    EventError,
    EventTooLargeError,
    InvalidEventError,
    ProducerBusyError,
    ProducerClosedError,
    UndeliveredEventsError,
)
from fincoach_events.events import (
    AnyBehavioralEvent,
    BehavioralEvent,
    GoalModified,
    PageViewed,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
)

if TYPE_CHECKING:
    from fincoach_events.accounts import Acknowledgement
    from fincoach_events.buffer import OutgoingEvent
    from fincoach_events.delivery import ProducerSettings
    from fincoach_events.producer import EventProducer
    from fincoach_events.sync_producer import SyncEventProducer

# Imported on first use: a caller that only wants the contract does not pay for a Kafka client (.09 s, 24 MiB).
_LAZY_NAMES = {
    "Acknowledgement": "fincoach_events.accounts",
    "EventProducer": "fincoach_events.producer",
    "OutgoingEvent": "fincoach_events.buffer",
    "ProducerSettings": "fincoach_events.delivery",
    "SyncEventProducer": "fincoach_events.sync_producer",
}

__all__ = [
    "Acknowledgement",
    "AnyBehavioralEvent",
    "BehavioralEvent",
    "EventError",
    "EventProducer",
    "EventTooLargeError",
    "GoalModified",
    "InvalidEventError",
    "OutgoingEvent",
    "PageViewed",
    "ProducerBusyError",
    "ProducerClosedError",
    "ProducerSettings",
    "ProductInteraction",
    "RecommendationInteraction",
    "SyncEventProducer",
    "TransactionCreated",
    "UndeliveredEventsError",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
