"""Archive rows of behavioural events in the form of PostgreSQL's binary COPY. Pure.

The driver looks up the type of every value again. Encoding a row in one pass, with a fixed layout, costs a third. The
PostgreSQL manual describes the layout under COPY, "Binary Format".
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

COLUMNS = (
    "event_id", "occurred_at", "user_id", "event_type", "interaction_type", "consent", "source", "payload", "generation",
    "partition", "offset",
)  # fmt: skip
# (event id as 16 bytes, microseconds since 1970, user id as 16 bytes, event type, interaction type, consent, source,
# payload as JSON bytes, generation, partition, offset)
EventRow = tuple[bytes, int, bytes, str, str, bool, str, bytes, int, int, int]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_POSTGRES_EPOCH_MICROSECONDS = 946_684_800_000_000  # 2000-01-01
_ROWS_AT_ONCE = 256  # about 128 KiB: the server works on one part while the next is made
_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER = struct.pack("!h", -1)
_JSONB_VERSION = 1
_begin = struct.Struct("!hi16siqi16s").pack
_payload = struct.Struct("!iB").pack
_end = struct.Struct("!ihiiiq").pack


def encode_event_rows(rows: Sequence[EventRow]) -> Iterator[bytes]:
    """Yield ``rows`` as the server's COPY takes them, in parts; without rows a header and a trailer."""
    words: dict[tuple[str, str, bool, str], bytes] = {}
    parts = [_HEADER]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        for (
            event_id,
            at,
            user_id,
            event_type,
            interaction,
            consent,
            source,
            payload,
            generation,
            partition,
            offset,
        ) in rows[start : start + _ROWS_AT_ONCE]:
            named = (event_type, interaction, consent, source)
            parts += (
                _begin(len(COLUMNS), 16, event_id, 8, at - _POSTGRES_EPOCH_MICROSECONDS, 16, user_id),
                words.get(named) or words.setdefault(named, _words(named)),
                _payload(len(payload) + 1, _JSONB_VERSION),
                payload,
                _end(2, generation, 4, partition, 8, offset),
            )
        yield b"".join(parts)
        parts.clear()
    yield b"".join((*parts, _TRAILER))  # the header too, where there was no row


def key_of_event_row(row: Sequence[Any]) -> tuple[UUID, dt.datetime]:
    """Return (event id, time) of a row as the driver takes them."""
    return UUID(bytes=row[0]), EPOCH + row[1] * _MICROSECOND


def _words(named: tuple[str, str, bool, str]) -> bytes:
    event_type, interaction, consent, source = named
    return _text(event_type) + _text(interaction) + struct.pack("!i?", 1, consent) + _text(source)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("!i", len(raw)) + raw
