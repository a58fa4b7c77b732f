"""Encoded events that only want an identifier and a time: a steady stream of them costs its producer almost nothing. Pure."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fincoach_events.events import AnyBehavioralEvent, encode_event

_TIME = b'"occurred_at":"'


class Encoded(NamedTuple):
    """An event ready to be sent."""

    value: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Stencil:
    """The bytes of an event around its identifier and its time."""

    before_id: bytes
    before_time: bytes
    after_time: bytes
    key: bytes

    @classmethod
    def of(cls, event: AnyBehavioralEvent) -> Stencil:
        """Return the stencil of ``event``."""
        raw = encode_event(event)
        before_id, identifier, rest = raw.partition(str(event.event_id).encode())
        before_time, mark, rest = rest.partition(_TIME)
        if not identifier or not mark:
            raise ValueError(f"an event without identifier or time: {raw.decode()}")
        return cls(before_id, before_time + mark, rest[rest.index(b'"') :], str(event.user_id).encode())

    def filled(self, identifier: bytes, moment: bytes) -> Encoded:
        """Return the event with this identifier and time."""
        return Encoded(b"".join((self.before_id, identifier, self.before_time, moment, self.after_time)), self.key)


class Stream:
    """An endless stream of different events, made from stencils in turn."""

    def __init__(self, stencils: Sequence[Stencil], *, salt: int) -> None:
        self._stencils: Iterator[Stencil] = itertools.cycle(stencils)
        self._numbers = itertools.count()
        self._salt = salt & 0xFFFF_FFFF

    def take(self, count: int, *, at: dt.datetime) -> list[Encoded]:
        """Return the next ``count`` events, all of which happened at ``at``."""
        moment = at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        milliseconds = int(at.timestamp() * 1000)
        return [
            stencil.filled(_identifier(milliseconds, next(self._numbers), salt=self._salt), moment)
            for stencil in itertools.islice(self._stencils, count)
        ]


def stencils_of(events: Iterable[AnyBehavioralEvent]) -> list[Stencil]:
    """Return the stencils of ``events``."""
    return [Stencil.of(event) for event in events]


def _identifier(milliseconds: int, number: int, *, salt: int) -> bytes:
    """Return the text of a UUIDv7 (RFC 9562) that differs by number, and by salt from those of another stream."""
    high, low = f"{milliseconds:012x}", f"{salt:08x}{number:010x}"
    return f"{high[:8]}-{high[8:]}-7{low[:3]}-8{low[3:6]}-{low[6:]}".encode()
