"""What a dead letter says about the record in it."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from backends.broker.interface import Lag, Record
from backends.dead_letters import LONGEST_DETAIL_CHARACTERS, dead_letter_headers

AT = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
RECORD = Record(topic="some.topic", partition=3, offset=41, key=b"k", value=b"no json", timestamp=AT)


def test_the_headers_lead_back_to_the_record() -> None:
    """Nobody could find the record on its topic, or replay it after a fix."""
    assert dead_letter_headers(RECORD, "not_json", "line 1") == {
        "reason": "not_json",
        "detail": "line 1",
        "source_topic": "some.topic",
        "source_partition": "3",
        "source_offset": "41",
        "source_timestamp": "2026-03-04T12:00:00+00:00",
    }


@given(st.text(max_size=3 * LONGEST_DETAIL_CHARACTERS))
def test_the_detail_never_makes_a_dead_letter_too_large(detail: str) -> None:
    """A message that quotes its own megabytes could not be put aside, and would stop the stream."""
    kept = dead_letter_headers(RECORD, "invalid_field", detail)["detail"]
    assert len(kept) <= LONGEST_DETAIL_CHARACTERS
    assert detail.startswith(kept)


def test_a_lag_is_never_negative() -> None:
    """A position asked for after the end would show as a negative number of waiting records."""
    assert Lag(topic="t", partition=0, position=5, end=9).records == 4
    assert Lag(topic="t", partition=0, position=9, end=5).records == 0
