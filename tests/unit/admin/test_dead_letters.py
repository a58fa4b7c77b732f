"""Dead letters as people and programs take them."""

from __future__ import annotations

import base64
import datetime as dt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.cli.rendering import json_line
from admin.dead_letters import SHOWN_BYTES, as_document, bytes_for_people, moment_of
from schemas.rows import DeadLetter

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
LETTER = DeadLetter(
    id=1,
    topic="t",
    generation=1,
    partition=0,
    offset=5,
    key=None,
    reason="not_json",
    detail="",
    raw=b"",
    record_at=None,
    created_at=NOW,
    producer="host",
    attempts=0,
    retry_of=None,
    retried_at=None,
    resolved_at=None,
    state="open",
)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - dt.timedelta(seconds=90)),
        ("30m", NOW - dt.timedelta(minutes=30)),
        ("12h", NOW - dt.timedelta(hours=12)),
        ("7d", NOW - dt.timedelta(days=7)),
        ("2026-03-04", dt.datetime(2026, 3, 4, tzinfo=dt.UTC)),
        ("2026-03-04T12:00Z", NOW),
        ("2026-03-04T13:00+01:00", NOW),
    ],
)
def test_times_are_read_as_they_are_typed(text: str, moment: dt.datetime) -> None:
    """Times are read in every form that people type."""
    assert moment_of(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "7 d", "999999d", "2026-13-01", ""])
def test_what_is_no_time_is_said(text: str) -> None:
    """A text that is not a time is refused with a sentence."""
    with pytest.raises(ValueError, match="is no time; write"):
        moment_of(text, now=NOW)


@given(st.binary(max_size=100), st.none() | st.binary(max_size=20))
def test_an_exported_letter_holds_its_bytes(raw: bytes, key: bytes | None) -> None:
    """An exported dead letter holds its bytes unchanged."""
    document = as_document(msgspec.structs.replace(LETTER, key=key, raw=raw))
    assert base64.b64decode(document["raw_base64"]) == raw
    assert (document["key_base64"] is None) == (key is None)
    assert document["raw_text"] is None or document["raw_text"].encode() == raw
    assert json_line(document).count("\n") == 1


@given(st.binary(max_size=200))
def test_bytes_cannot_steer_a_terminal(raw: bytes) -> None:
    """Bytes of a record cannot control the operator's terminal."""
    assert all(sign.isprintable() or sign in "\n\t" for sign in bytes_for_people(raw))


def test_a_long_record_is_cut_and_says_so() -> None:
    """A long record is cut, and the text says so."""
    shown = bytes_for_people(b"x" * (SHOWN_BYTES + 5))
    assert shown.endswith("… 5 bytes more: `dead-letters export` writes them all")
