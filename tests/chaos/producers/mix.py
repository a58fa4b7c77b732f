"""The mix of good and bad records: bytes, key, and whether the contract allows them. Seeded; no input or output."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from fincoach_events.events import MAX_EVENT_BYTES, AnyBehavioralEvent, encode_event
from tests.chaos.producers.population import Population

REMEMBERED = 400
# Shares of the kinds. The product's client lets less through than a broken one sends.
CLIENT_MIX = {"good": 0.92, "duplicate": 0.04, "late": 0.03, "malformed": 0.01}
RAW_MIX = {
    "good": 0.85,
    "duplicate": 0.05,
    "foreign_duplicate": 0.03,
    "late": 0.03,
    "malformed": 0.02,
    "key_mismatch": 0.008,
    "in_the_future": 0.005,
    "wrong_type": 0.005,
    "no_value": 0.0015,
    "oversized": 0.0005,
}


class Drawn(NamedTuple):
    """One record to send; ``event`` is set if the product's client can send it as an event."""

    kind: str
    valid: bool
    key: bytes | None
    value: bytes | None
    event: AnyBehavioralEvent | None = None


class Mix:
    """Draws records by their shares. ``foreign`` returns events that other producers sent recently."""

    def __init__(
        self,
        generator: np.random.Generator,
        population: Population,
        shares: Mapping[str, float],
        *,
        foreign: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        self._generator = generator
        self._population = population
        self._kinds = tuple(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._foreign = foreign
        self._sent: deque[AnyBehavioralEvent] = deque(maxlen=REMEMBERED)

    def next(self) -> Drawn:
        """Return the next record."""
        kind = str(self._kinds[int(self._generator.choice(len(self._kinds), p=self._shares))])
        return getattr(self, f"_{kind}")()  # type: ignore[no-any-return]

    def _good(self) -> Drawn:
        event = self._population.next()
        self._sent.append(event)
        return _valid("good", event)

    def _duplicate(self) -> Drawn:
        return _valid("duplicate", self._earlier()) if self._sent else self._good()

    def _foreign_duplicate(self) -> Drawn:
        known = self._foreign()
        if not known:
            return self._good()
        raw = known[int(self._generator.integers(len(known)))]
        user = msgspec.json.decode(raw)["user_id"]
        return Drawn("foreign_duplicate", True, str(user).encode(), raw)  # noqa: FBT003 - a field of the tuple

    def _late(self) -> Drawn:
        return _valid("late", self._population.late())

    def _malformed(self) -> Drawn:
        event = self._earlier() if self._sent else self._population.late()
        fields = self._fields(event)
        broken = (
            b"this is no JSON",
            b'{"event_type": "page_view", "event_id"',
            b"\xff\xfe\x00 not even text",
            msgspec.json.encode({name: value for name, value in fields.items() if name != "user_id"}),
            msgspec.json.encode(fields | {"event_type": "horoscope_view"}),
            msgspec.json.encode(fields | {"source": "s" * 101}),
            msgspec.json.encode(fields | {"page_url": "a\u0000b"}),
        )
        raw = broken[int(self._generator.integers(len(broken)))]
        return _invalid("malformed", str(event.user_id).encode(), raw)

    def _wrong_type(self) -> Drawn:
        event = self._population.late()
        raw = msgspec.json.encode(self._fields(event) | {"occurred_at": 20_000, "consent": "maybe"})
        return _invalid("wrong_type", str(event.user_id).encode(), raw)

    def _key_mismatch(self) -> Drawn:
        event = self._population.late()
        key = (None, b"somebody-else", str(event.user_id).upper().encode())[int(self._generator.integers(3))]
        return _invalid("key_mismatch", key, encode_event(event))

    def _in_the_future(self) -> Drawn:
        event = self._population.late()
        ahead = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
        raw = msgspec.json.encode(self._fields(event) | {"occurred_at": ahead.isoformat()})
        return _invalid("in_the_future", str(event.user_id).encode(), raw)

    def _no_value(self) -> Drawn:
        return _invalid("no_value", b"tombstone", None)

    def _oversized(self) -> Drawn:
        event = self._population.late()
        size = MAX_EVENT_BYTES + int(self._generator.integers(1, MAX_EVENT_BYTES))
        raw = msgspec.json.encode(self._fields(event) | {"additional_data": {"note": "x" * size}})
        return _invalid("oversized", str(event.user_id).encode(), raw)

    def _earlier(self) -> AnyBehavioralEvent:
        return self._sent[int(self._generator.integers(len(self._sent)))]

    def _fields(self, event: AnyBehavioralEvent) -> dict[str, Any]:
        """Return the event's JSON as plain values with a new id, so that a broken record is not a duplicate."""
        fields: dict[str, Any] = msgspec.json.decode(encode_event(self._population.late()))
        return fields | {"user_id": str(event.user_id)}


def _valid(kind: str, event: AnyBehavioralEvent) -> Drawn:
    return Drawn(kind, True, str(event.user_id).encode(), encode_event(event), event)  # noqa: FBT003 - a field of the tuple


def _invalid(kind: str, key: bytes | None, value: bytes | None) -> Drawn:
    return Drawn(kind, False, key, value)  # noqa: FBT003 - a field of the tuple
