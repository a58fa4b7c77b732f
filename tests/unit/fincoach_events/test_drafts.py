"""Building validated events from loose fields."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.drafts import (
    EVENT_CLASSES,
    EventFactory,
    build_event,
    cleaned_event,
    encode_within_limit,
    topic_key,
)
from fincoach_events.errors import EventTooLargeError, InvalidEventError
from fincoach_events.events import (
    MAX_STRING_CHARACTERS,
    GoalModified,
    PageViewed,
    TransactionCreated,
    decode_event,
    encode_event,
)
from fincoach_events.identifiers import event_id_from_key

USER = UUID(int=7)
NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
ENVELOPE: dict[str, Any] = {"event_id": UUID(int=1), "user_id": USER, "occurred_at": NOON, "consent": True}
# The required fields of each type beside the envelope.
REQUIRED: dict[str, dict[str, Any]] = {
    "page_view": {"page_url": "/"},
    "recommendation_interaction": {"recommendation_id": "r", "interaction_type": "click"},
    "purchase": {"product_id": "p", "interaction_type": "purchase"},
    "goal_modification": {"goal_id": "g", "interaction_type": "fail"},
    "transaction_creation": {
        "amount_minor": 1299,
        "currency": "EUR",
        "category": "groceries",
        "transaction_type": "debit",
    },
}
FACTORY = EventFactory(consent_default=False, source="host")


def page(**fields: Any) -> PageViewed:  # noqa: ANN401 - any field of the type
    """Return a page view with further fields."""
    event = build_event("page_view", ENVELOPE | REQUIRED["page_view"] | fields)
    assert isinstance(event, PageViewed)
    return event


@pytest.mark.parametrize("event_type", EVENT_CLASSES)
def test_each_type_is_built_from_what_it_needs(event_type: str) -> None:
    """Each of the five types is built from its required fields."""
    event = build_event(event_type, ENVELOPE | REQUIRED[event_type])
    assert type(event) is EVENT_CLASSES[event_type]
    assert decode_event(encode_within_limit(event)) == event


@pytest.mark.parametrize(
    ("event_type", "field"), [(name, field) for name, fields in REQUIRED.items() for field in fields]
)
def test_what_is_required_is_asked_for(event_type: str, field: str) -> None:
    """A missing required field is refused by its name before anything is sent."""
    fields = {name: value for name, value in REQUIRED[event_type].items() if name != field}
    with pytest.raises(InvalidEventError, match=field) as caught:
        build_event(event_type, ENVELOPE | fields)
    assert caught.value.reason == "missing_field"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"occurred_at": dt.datetime(2026, 3, 4, 12)}, "invalid_field"),  # noqa: DTZ001 - the mistake in question
        ({"user_id": "somebody"}, "invalid_field"),
        ({"consent": None}, "missing_field"),
        ({"page_url": ""}, "invalid_field"),
        ({"duration_seconds": -1.0}, "invalid_field"),
        ({"page_ulr": "/"}, "invalid_field"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], reason: str) -> None:
    """A naive time, a misspelt name or a value out of range is refused."""
    with pytest.raises(InvalidEventError) as caught:
        page(**fields)
    assert caught.value.reason == reason


def test_unknown_types_are_refused() -> None:
    """An unknown event type is refused; the error names the known ones."""
    with pytest.raises(InvalidEventError, match="page_view") as caught:
        build_event("page_viewed", ENVELOPE)
    assert caught.value.reason == "unknown_type"


def test_sensitive_keys_are_dropped_at_any_depth() -> None:
    """Sensitive keys are dropped at any depth."""
    event = page(
        password="p", additional_data={"Api_Key": 1, "kept": {"card": [{"credit_card_number": "4", "city": "Bonn"}]}}
    )
    assert event.additional_data == {"kept": {"card": [{"city": "Bonn"}]}}
    assert b"password" not in encode_event(event)


def test_the_envelopes_own_fields_are_not_taken_for_sensitive_ones() -> None:
    """The envelope's own ``key_id`` is kept although its name contains "key"."""
    assert page(key_id="k1").key_id == "k1"


def test_long_strings_are_cut() -> None:
    """Long strings are cut instead of refusing their event."""
    event = page(page_url="/" * 5_000, additional_data={"text": "x" * 5_000})
    assert len(event.page_url) == MAX_STRING_CHARACTERS
    assert event.additional_data == {"text": "x" * MAX_STRING_CHARACTERS}


def test_ready_events_are_checked_and_cleaned_too() -> None:
    """Events from constructors are validated and cleaned too."""
    wrong = GoalModified(**ENVELOPE, goal_id="g", interaction_type="won")  # type: ignore[arg-type] # the mistake in question
    with pytest.raises(InvalidEventError):
        cleaned_event(wrong)
    leaky = PageViewed(**ENVELOPE, page_url="/", additional_data={"token": "t", "a": 1})
    assert cleaned_event(leaky) == PageViewed(**ENVELOPE, page_url="/", additional_data={"a": 1})


def test_an_event_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    """An event of exactly the limit is encoded; one byte more is refused."""
    event = page()
    size_bytes = len(encode_event(event))
    assert len(encode_within_limit(event, limit_bytes=size_bytes)) == size_bytes
    with pytest.raises(EventTooLargeError) as caught:
        encode_within_limit(event, limit_bytes=size_bytes - 1)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (size_bytes, size_bytes - 1)


@pytest.mark.parametrize("value", [object(), {1, 2, object()}, 1j])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """A value that JSON cannot represent raises InvalidEventError and no foreign error."""
    with pytest.raises(InvalidEventError) as caught:
        encode_within_limit(page(additional_data={"value": value}))
    assert caught.value.reason == "invalid_field"


def test_no_number_is_lost_on_the_wire() -> None:
    """The sender refuses NaN, which JSON turns into null."""
    event = GoalModified(**ENVELOPE, goal_id="g", interaction_type="update", score=math.nan)
    with pytest.raises(InvalidEventError):
        cleaned_event(event)


def test_the_factory_fills_in_the_hosts_defaults() -> None:
    """The factory fills in consent, source and a time-ordered id."""
    fields = {"user_id": str(USER), "occurred_at": NOON, "page_url": "/"}
    event = FACTORY.draft("page_view", fields, idempotency_key=None, consent=None)
    assert (event.consent, event.source, event.event_id.version) == (False, "host", 7)
    assert FACTORY.draft("page_view", fields, idempotency_key=None, consent=True).consent
    assert event.event_id != FACTORY.draft("page_view", fields, idempotency_key="", consent=None).event_id


def test_one_idempotency_key_is_one_event() -> None:
    """The same idempotency key yields the same event."""
    fields = {"user_id": USER, "occurred_at": NOON, "page_url": "/"}
    first, second = (FACTORY.draft("page_view", fields, idempotency_key="order:1", consent=None) for _ in range(2))
    assert first == second
    assert first.event_id == event_id_from_key("order:1")


def test_consent_has_no_silent_default() -> None:
    """A factory without a consent default is refused."""
    with pytest.raises(TypeError, match="consent_default"):
        EventFactory(consent_default=None, source="host")  # type: ignore[arg-type] # the mistake in question


@given(
    amount_minor=st.integers(0, 10**12),
    category=st.text(min_size=1, max_size=50),
    balance_after_minor=st.none() | st.integers(-(10**12), 10**12),
    user=st.uuids(),
    occurred_at=st.datetimes(timezones=st.just(dt.UTC)),
)
def test_whatever_the_factory_lets_out_can_be_read(
    amount_minor: int, category: str, balance_after_minor: int | None, user: UUID, occurred_at: dt.datetime
) -> None:
    """Every event that the factory accepts can be decoded and keeps its values."""
    fields = {
        "user_id": user,
        "occurred_at": occurred_at,
        "amount_minor": amount_minor,
        "currency": "EUR",
        "category": category,
        "transaction_type": "credit",
        "balance_after_minor": balance_after_minor,
    }
    outgoing = FACTORY.outgoing(FACTORY.draft("transaction_creation", fields, idempotency_key=None, consent=True))
    event = decode_event(outgoing.value)
    assert isinstance(event, TransactionCreated)
    assert (event, topic_key(event)) == (outgoing.event, outgoing.key)
    assert (event.amount_minor, event.category, event.occurred_at) == (amount_minor, category, occurred_at)
