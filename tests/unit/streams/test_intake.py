"""Intake: what a record must fulfil to be archived."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import AnyBehavioralEvent
from streams.batches.events import decode_storable_event
from streams.batches.intake import EPOCH, Intake, microseconds, take_in
from tests.unit.streams.worlds import NOON, FetchedEvent, paid


def taken(*records: FetchedEvent) -> Intake[AnyBehavioralEvent]:
    """Return the intake of ``records``."""
    return take_in(records, decode_storable_event)


def test_a_valid_record_is_accepted_with_its_own_text() -> None:
    """A valid record is accepted with its event, offset and bytes."""
    event = paid()
    record = FetchedEvent(event, offset=41)
    (item,) = taken(record).accepted
    assert (item.message, item.offset, item.record) == (event, 41, record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (FetchedEvent(paid(), raw=b""), "not_json"),
        (FetchedEvent(paid(), raw=b"\xff\xfe"), "not_json"),
        (FetchedEvent(paid(), raw=b'{"event_type":"transaction_creation"}'), "missing_field"),
        (FetchedEvent(paid(), raw=b'{"event_type":"unheard_of"}'), "unknown_type"),
        (FetchedEvent(paid(category="a\0b")), "invalid_field"),
        (FetchedEvent(paid(source="s" * 101)), "invalid_field"),
        (FetchedEvent(paid(occurred_at=dt.datetime(1950, 1, 1, tzinfo=dt.UTC))), "invalid_field"),
        (FetchedEvent(paid(occurred_at=NOON + dt.timedelta(minutes=6))), "in_the_future"),
        (FetchedEvent(paid(), key=b"somebody"), "key_mismatch"),
        (FetchedEvent(paid(), raw=b" " * (1024 * 1024 + 1)), "too_large"),
        (
            FetchedEvent(paid(), raw=b'{"event_type":"page_view","additional_data":' + b'{"a":' * 100_000),
            "not_json",
        ),
    ],
)
def test_a_bad_record_becomes_a_dead_letter_with_its_reason(record: FetchedEvent, reason: str) -> None:
    """A bad record becomes a dead letter with its reason, and the next one is accepted."""
    intake = taken(record, FetchedEvent(paid()))
    assert [letter.reason for letter in intake.dead] == [reason]
    assert len(intake.accepted) == 1


def test_five_minutes_ahead_are_tolerated() -> None:
    """Events up to five minutes ahead of the broker are accepted."""
    assert taken(FetchedEvent(paid(occurred_at=NOON + dt.timedelta(minutes=5)))).dead == []


def test_a_dead_letter_names_the_type_that_it_claims() -> None:
    """A dead letter names the event type that its bytes claim."""
    letters = taken(
        FetchedEvent(paid(), raw=b'{"event_type" : "goal_modification"}'), FetchedEvent(paid(), raw=b"rubbish")
    ).dead
    assert [letter.event_type for letter in letters] == ["goal_modification", None]


@pytest.mark.parametrize(
    "spoil", [str.upper, lambda key: key.replace("-", ""), lambda key: f"-{key[:8]}{key[9:]}", lambda key: f"{{{key}}}"]
)
def test_a_key_that_only_means_the_user_is_none(spoil: Callable[[str], str]) -> None:
    """A key must be the user's id in its standard form."""
    event = paid()
    (letter,) = taken(FetchedEvent(event, key=spoil(str(event.user_id)).encode())).dead
    assert letter.reason == "key_mismatch"


OFFSETS = st.integers(-1_439, 1_439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))


@given(st.datetimes(timezones=OFFSETS | st.just(dt.UTC)))
def test_microseconds_are_exact(moment: dt.datetime) -> None:
    """Microseconds since 1970 are exact in any time zone."""
    assert EPOCH + dt.timedelta(microseconds=microseconds(moment)) == moment
    assert microseconds(moment) / 1_000_000 == moment.timestamp()
