"""The contract of a behavioural event: five frozen types, their validation and the sensitive keys.

Pure data, shared by a host application and the learning system. :mod:`fincoach_events.producer` sends it.
Amounts are integer minor units (cents) with an ISO 4217 currency. Timestamps are aware. The topic key of
every event is its ``user_id``.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from fincoach_events.errors import InvalidEventError

SCHEMA_VERSION = 1
BEHAVIORAL_EVENTS_TOPIC = "fincoach.behavioral-events"
MAX_EVENT_BYTES = 1024 * 1024
MAX_STRING_CHARACTERS = 1_000
MAX_AMOUNT_MINOR = 10**12

# A key that contains one of these words is dropped before an event leaves the host (the host's own list).
SENSITIVE_KEY_PARTS = ("password", "token", "secret", "key", "auth", "credit_card", "ssn", "social_security")

AwareDatetime = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_STRING_CHARACTERS)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_STRING_CHARACTERS)]
Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
AmountMinor = Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT_MINOR)]
SignedMinor = Annotated[int, msgspec.Meta(ge=-MAX_AMOUNT_MINOR, le=MAX_AMOUNT_MINOR)]
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

RecommendationInteractionType = Literal["view", "click", "dismiss", "implement", "helpful", "not_helpful"]
PurchaseInteractionType = Literal["view", "add_to_cart", "purchase", "remove_from_cart"]
GoalInteractionType = Literal["create", "update", "delete", "achieve", "fail"]
TransactionType = Literal["debit", "credit"]


class BehavioralEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event_type"):
    """The fields of every behavioural event.

    Attributes:
        event_id: UUIDv7 from the producer, or derived from the caller's idempotency key.
        user_id: the user that the event is about; also the topic key.
        occurred_at: when it happened (aware); an event that is sent again keeps it.
        consent: may this event be counted and train? There is no default.
        schema_version: version of the type's shape.
        source: who sends it: ``host``, ``replay:<set>`` or ``simulated-host``.
        key_id: names the encryption key of the payload; null while payloads are not encrypted.
        additional_data: further data of the host, without sensitive keys.
    """

    event_id: UUID
    user_id: UUID
    occurred_at: AwareDatetime
    consent: bool
    schema_version: int = SCHEMA_VERSION
    source: Name = "host"
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    key_id: Name | None = None
    session_id: Text | None = None
    page_url: Text | None = None
    additional_data: dict[str, Any] | None = None


class PageViewed(BehavioralEvent, frozen=True, kw_only=True, omit_defaults=True, tag="page_view"):
    """A user viewed a page; ``page_url`` is required."""

    page_url: Name
    interaction_type: Literal["page_view"] = "page_view"
    duration_seconds: Annotated[float, msgspec.Meta(ge=0.0)] | None = None


class RecommendationInteraction(
    BehavioralEvent, frozen=True, kw_only=True, omit_defaults=True, tag="recommendation_interaction"
):
    """A recommendation was shown or answered.

    ``recommendation_id`` is the host's own row. ``prediction_id`` comes from the replica's answer; through it,
    feedback finds the version, action and propensity that caused it. ``action`` and ``propensity`` are
    only for logs of other systems, whose predictions are not archived here.
    """

    recommendation_id: Name
    interaction_type: RecommendationInteractionType
    prediction_id: UUID | None = None
    action_set: Name | None = None
    action: Name | None = None
    propensity: Probability | None = None
    position: Annotated[int, msgspec.Meta(ge=0)] | None = None
    context: dict[str, float] | None = None


class ProductInteraction(BehavioralEvent, frozen=True, kw_only=True, omit_defaults=True, tag="purchase"):
    """A product was viewed, put into the cart, bought, or removed from the cart."""

    product_id: Name
    interaction_type: PurchaseInteractionType
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    unit_price_minor: AmountMinor | None = None
    currency: Currency | None = None


class GoalModified(BehavioralEvent, frozen=True, kw_only=True, omit_defaults=True, tag="goal_modification"):
    """A goal was created, changed, deleted, achieved or failed.

    ``target_minor``: amount to reach (``goal_kind`` savings) or to stay under (``goal_kind`` budget). ``due_at``: its end.
    ``progress``: share reached, in 0..1, where the host knows it; ``score``: 0..100 for graded goals.
    """

    goal_id: Name
    interaction_type: GoalInteractionType
    goal_kind: Name | None = None
    target_minor: AmountMinor | None = None
    currency: Currency | None = None
    due_at: AwareDatetime | None = None
    progress: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    score: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] | None = None


class TransactionCreated(BehavioralEvent, frozen=True, kw_only=True, omit_defaults=True, tag="transaction_creation"):
    """Money moved: ``debit`` out of, ``credit`` into the user's wallet."""

    amount_minor: AmountMinor
    currency: Currency
    category: Name
    transaction_type: TransactionType
    interaction_type: Literal["create"] = "create"
    merchant: Text | None = None
    city: Text | None = None
    country: Text | None = None
    balance_after_minor: SignedMinor | None = None


AnyBehavioralEvent = PageViewed | RecommendationInteraction | ProductInteraction | GoalModified | TransactionCreated
EVENT_TYPES: tuple[type[BehavioralEvent], ...] = (
    PageViewed,
    RecommendationInteraction,
    ProductInteraction,
    GoalModified,
    TransactionCreated,
)

_decoder: msgspec.json.Decoder[AnyBehavioralEvent] = msgspec.json.Decoder(AnyBehavioralEvent)
_encoder = msgspec.json.Encoder()


def encode_event(event: AnyBehavioralEvent) -> bytes:
    """Return the event as the JSON that goes onto the topic."""
    return _encoder.encode(event)


def decode_event(raw: bytes) -> AnyBehavioralEvent:
    """Return the event in ``raw``.

    Raises:
        InvalidEventError: with the reason ``not_json`` or ``invalid``, or ``unknown_type``.
    """
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidEventError(_validation_reason(str(error)), str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEventError("not_json", str(error)) from error


def _validation_reason(message: str) -> str:
    """Return the reason code for one of msgspec's messages."""
    if "Invalid value" in message and "event_type" in message:
        return "unknown_type"
    return "missing_field" if "missing required field" in message else "invalid_field"


def without_sensitive_keys(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return a copy without sensitive keys at any depth, and with strings cut at 1,000 characters."""
    return {name: _cleaned(value) for name, value in mapping.items() if not _is_sensitive(name)}


def _is_sensitive(name: str) -> bool:
    lowered = name.lower()
    return any(part in lowered for part in SENSITIVE_KEY_PARTS)


def _cleaned(value: Any) -> Any:  # noqa: ANN401 - the host's own free-form payload
    if isinstance(value, dict):
        return without_sensitive_keys({str(name): item for name, item in value.items()})
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value[:MAX_STRING_CHARACTERS] if isinstance(value, str) else value
