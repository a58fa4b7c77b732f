"""The bad records of the demo: each is refused for the reason that it stands for, and for that alone."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from schemas.codec import decode_behavioral_event
from schemas.vocabulary import DeadLetterReason
from stack.bad_input import bad_records
from streams.batches.intake import take_in

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)


@dataclass
class Fetched:
    """A record as the broker gives it back."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def test_each_kind_of_bad_input_is_there_once_and_nothing_else_is_wrong_with_it() -> None:
    """A kind of bad input would no longer be shown by the demo, or be refused for another reason than the one shown."""
    arrived_ms = int(NOW.timestamp() * 1000)
    records = [Fetched(number, arrived_ms, key, value) for number, (value, key) in enumerate(bad_records(NOW))]
    intake = take_in(records, decode_behavioral_event)
    assert intake.accepted == []
    assert [letter.reason for letter in intake.dead] == [
        DeadLetterReason.NOT_JSON, DeadLetterReason.MISSING_FIELD, DeadLetterReason.IN_THE_FUTURE, DeadLetterReason.TOO_LARGE,
        DeadLetterReason.UNKNOWN_TYPE,
    ]  # fmt: skip
    assert max(len(record.value or b"") for record in records) > 2 * 1024 * 1024
