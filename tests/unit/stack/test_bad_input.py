"""The bad records of the demo."""

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
    """A record as the broker returns it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def test_each_bad_record_is_refused_for_its_own_reason() -> None:
    """Each kind of bad input occurs once and is refused for its own reason only."""
    arrived_ms = int(NOW.timestamp() * 1000)
    records = [Fetched(number, arrived_ms, key, value) for number, (value, key) in enumerate(bad_records(NOW))]
    intake = take_in(records, decode_behavioral_event)
    assert intake.accepted == []
    assert [dead_letter.reason for dead_letter in intake.dead] == [
        DeadLetterReason.NOT_JSON,
        DeadLetterReason.MISSING_FIELD,
        DeadLetterReason.IN_THE_FUTURE,
        DeadLetterReason.TOO_LARGE,
        DeadLetterReason.UNKNOWN_TYPE,
    ]
    assert max(len(record.value or b"") for record in records) > 2 * 1024 * 1024
