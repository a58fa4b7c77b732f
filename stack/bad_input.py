"""One record of each kind that must become a dead letter; for the demo and for tests of the real topic."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from uuid import UUID

import msgspec

from fincoach_events.identifiers import event_id_from_key, user_id_from_name

OVERSIZED_BYTES = 2 * 1024 * 1024
USER: UUID = user_id_from_name("bad-input", "1")


def bad_records(now: dt.datetime) -> Iterator[tuple[bytes, bytes]]:
    """Yield (value, key): no JSON, a missing field, a date in the future, 2 MB, an unknown type."""
    good = {
        "event_type": "page_view",
        "event_id": str(event_id_from_key("bad-input:1")),
        "user_id": str(USER),
        "occurred_at": now.isoformat(),
        "consent": True,
        "source": "demo:bad-input",
        "page_url": "/budget",
    }
    documents = (
        {name: value for name, value in good.items() if name != "page_url"},
        good | {"occurred_at": (now + dt.timedelta(days=2)).isoformat()},
        good | {"additional_data": {"note": "x" * OVERSIZED_BYTES}},
        good | {"event_type": "horoscope_view"},
    )
    key = str(USER).encode()
    yield b"this is no JSON", key
    for document in documents:
        yield msgspec.json.encode(document), key
