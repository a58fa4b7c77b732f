"""What a dead letter says about the record in it."""

from __future__ import annotations

import datetime as dt
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.broker.interface import Lag, Record
from backends.dead_letters import (
    LONGEST_DETAIL_CHARACTERS,
    dead_letter_headers,
    key_of,
    producer_of,
    retry_of,
)
from schemas.dead_letters import HEADERS
from schemas.topics import SPARE_BYTES

AT = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
RECORD = Record(topic="some.topic", partition=3, offset=41, key=b"k", value=b'{"source":"shop"', timestamp=AT)


def with_key(key: bytes | None) -> Record:
    """Return the record under another key."""
    return Record(topic="some.topic", partition=3, offset=41, key=key, value=b"", timestamp=AT)


def test_the_headers_lead_back_to_the_record() -> None:
    """The headers identify the record, its producer and the reason."""
    assert dead_letter_headers(RECORD, "not_json", "line 1") == {
        "reason": "not_json",
        "detail": "line 1",
        "source_topic": "some.topic",
        "source_partition": "3",
        "source_offset": "41",
        "source_timestamp": "2026-03-04T12:00:00+00:00",
        "source_key": "k",
        "producer": "shop",
    }


@given(st.none() | st.binary(max_size=20), st.sampled_from([{}, {"retry_of": "3", "attempt": "1"}]))
def test_every_header_stands_in_the_register(key: bytes | None, sent_again: dict[str, str]) -> None:
    """Every header is in the register."""
    record = Record(topic="t", partition=0, offset=9, key=key, value=b"", timestamp=AT, headers=sent_again)
    assert set(dead_letter_headers(record, "not_json", "")) <= set(HEADERS)


def test_a_record_that_was_sent_again_leads_back_to_its_first_letter() -> None:
    """A retried record that fails again names its first dead letter and its number of retries."""
    again = Record(
        topic="t", partition=0, offset=9, key=None, value=b"", timestamp=AT, headers={"retry_of": "17", "attempt": "2"}
    )
    headers = dead_letter_headers(again, "not_json", "")
    assert (headers["retry_of"], headers["attempt"]) == ("17", "2")
    assert retry_of(headers) == (17, 2)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (None, 0)),
        ({"attempt": "3"}, (None, 0)),
        ({"retry_of": "x", "attempt": "3"}, (None, 0)),
        ({"retry_of": "-4", "attempt": "3"}, (None, 0)),
        ({"retry_of": "0", "attempt": "3"}, (None, 0)),
        ({"retry_of": "9" * 30, "attempt": "3"}, (None, 0)),
        ({"retry_of": str(2**63), "attempt": "3"}, (None, 0)),
        ({"retry_of": "٣", "attempt": "3"}, (None, 0)),
        ({"retry_of": "4"}, (4, 1)),
        ({"retry_of": "4", "attempt": "many"}, (4, 1)),
        ({"retry_of": "4", "attempt": "999999"}, (4, 10_000)),
    ],
)
def test_strange_headers_of_others_are_no_retry(headers: dict[str, str], expected: tuple[int | None, int]) -> None:
    """Invalid retry headers of a producer are ignored."""
    assert retry_of(headers) == expected


@given(st.none() | st.binary(max_size=200) | st.text(max_size=50).map(lambda text: text.encode(errors="replace")))
def test_the_key_comes_back_byte_for_byte(key: bytes | None) -> None:
    """The key of a dead letter is restored byte for byte."""
    headers = dead_letter_headers(with_key(key), "not_json", "")
    assert key_of(headers) == key
    assert "\0" not in "".join(headers.values())


@pytest.mark.parametrize("byte", [b"k", b"\xff", b"\0"])
def test_a_huge_key_does_not_make_a_dead_letter_too_large(byte: bytes) -> None:
    """A key up to 4 KiB comes back with its letter; one of megabytes is left out, so that the letter fits on its topic."""
    longest = dead_letter_headers(with_key(byte * 4_096), "not_json", "\U0001f600" * LONGEST_DETAIL_CHARACTERS)
    assert key_of(longest) == byte * 4_096
    assert sum(len(f"{name}{value}".encode()) for name, value in longest.items()) < SPARE_BYTES
    assert key_of(dead_letter_headers(with_key(byte * 4_097), "not_json", "")) is None


@given(st.text(max_size=3 * LONGEST_DETAIL_CHARACTERS))
def test_the_detail_never_makes_a_dead_letter_too_large(detail: str) -> None:
    """A long detail never makes a dead letter too large."""
    kept = dead_letter_headers(RECORD, "invalid_field", detail)["detail"]
    assert len(kept) <= LONGEST_DETAIL_CHARACTERS == 1_000
    assert "\0" not in kept
    assert kept.encode().decode() == kept


@pytest.mark.parametrize(
    ("raw", "producer"),
    [
        (b'{"event_type":"page_view","source":"replay:oulad"}', "replay:oulad"),
        (b'{"event_type":"page_view"}', "host"),
        (b'{"type":"PredictionServed","replica_id":"replica-2"}', "replica-2"),
        (b'{"type":"TriggerTraining","issuer":"ann"}', "ann"),
        (b'{"event_type":"page_view","source":"shop","additional_data":{"source":"inner"', "shop"),
        (b'{"event_type":"page_view","source":5}', "unknown"),
        (b'{"event_type":"page_view","source":"' + b"x" * 300 + b'"}', "x" * 100),
        (b'{"source":"a\\u0000b"}', "ab"),
        (b"[1]", "unknown"),
        (b"", "unknown"),
        (b"\xff\xfe", "unknown"),
        (b'{"a":' * 100_000, "unknown"),
    ],
)
def test_the_producer_is_read_as_well_as_the_bytes_allow(raw: bytes, producer: str) -> None:
    """The producer is read from as much as the bytes allow."""
    assert producer_of(raw) == producer


@given(st.binary(max_size=300) | st.dictionaries(st.text(), st.text() | st.integers()).map(msgspec.json.encode))
def test_any_bytes_have_a_producer_that_can_be_stored(raw: bytes) -> None:
    """Any bytes yield a producer's name that the database can store."""
    named = producer_of(raw)
    assert 0 < len(named) <= 100
    assert "\0" not in named
    assert named.encode()


def test_a_cut_off_event_still_names_its_producer() -> None:
    """A truncated event still names its producer."""
    whole = msgspec.json.encode(
        {"event_type": "page_view", "event_id": str(uuid.uuid4()), "source": "shop", "page_url": "/"}
    )
    assert producer_of(whole[:-5]) == "shop"


def test_a_lag_is_never_negative() -> None:
    """A lag is never negative."""
    assert Lag(topic="t", partition=0, position=5, end=9).records == 4
    assert Lag(topic="t", partition=0, position=9, end=5).records == 0
