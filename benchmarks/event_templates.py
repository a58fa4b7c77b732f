"""Encoded events without identifier and time: filling these in makes a steady stream almost free for its producer. Pure."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fincoach_events.events import AnyBehavioralEvent, encode_event

_TIME = b'"occurred_at":"'
_REPLACED = 8  # digits of a user's identifier, up to its first hyphen


class Encoded(NamedTuple):
    """An event ready to be sent."""

    value: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class EventTemplate:
    """The bytes of an event around its identifier, the first digits of its user, and its time."""

    before_id: bytes
    before_user: bytes
    before_time: bytes
    after_time: bytes
    user: bytes

    @classmethod
    def of(cls, event: AnyBehavioralEvent) -> EventTemplate:
        """Return the template of ``event``."""
        raw, user = encode_event(event), str(event.user_id).encode()
        before_id, identifier, rest = raw.partition(str(event.event_id).encode())
        before_user, found, rest = rest.partition(user)
        between, mark, rest = rest.partition(_TIME)
        if not (identifier and found and mark):
            raise ValueError(f"an event without identifier, user or time: {raw.decode()}")
        before_time = user[_REPLACED:] + between + mark
        return cls(before_id, before_user, before_time, rest[rest.index(b'"') :], user)

    def filled(self, identifier: bytes, moment: bytes, *, user_begins: bytes | None = None) -> Encoded:
        """Return the event with this identifier and time; ``user_begins`` replaces the first digits of its user."""
        begins = user_begins or self.user[:_REPLACED]
        parts = (self.before_id, identifier, self.before_user, begins, self.before_time, moment, self.after_time)
        return Encoded(b"".join(parts), begins + self.user[_REPLACED:])


class Stream:
    """An endless stream of distinct events, made from templates in turn.

    With ``user_life``, a new user replaces each one after that many events of the stream, not all at once.
    """

    def __init__(self, templates: Sequence[EventTemplate], *, salt: int, user_life: int | None = None) -> None:
        self._templates: Iterator[EventTemplate] = itertools.cycle(templates)
        self._numbers = itertools.count()
        self._salt = salt & 0xFFFF_FFFF
        self._user_life = user_life

    def take(self, count: int, *, at: dt.datetime) -> list[Encoded]:
        """Return the next ``count`` events, all with the time ``at``."""
        moment = at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        milliseconds = int(at.timestamp() * 1000)
        made = []
        for template in itertools.islice(self._templates, count):
            number = next(self._numbers)
            identifier = _identifier(milliseconds, number, salt=self._salt)
            made.append(template.filled(identifier, moment, user_begins=self._user_begins(template, number)))
        return made

    def _user_begins(self, template: EventTemplate, number: int) -> bytes | None:
        if self._user_life is None:
            return None
        born = int(template.user[:_REPLACED], 16) % self._user_life
        return b"%08x" % ((number + born) // self._user_life)


def templates_of(events: Iterable[AnyBehavioralEvent]) -> list[EventTemplate]:
    """Return the templates of ``events``."""
    return [EventTemplate.of(event) for event in events]


def _identifier(milliseconds: int, number: int, *, salt: int) -> bytes:
    """Return the text of a UUIDv7 (RFC 9562) that is unique by number, and by salt across streams."""
    high, low = f"{milliseconds:012x}", f"{salt:08x}{number:010x}"
    return f"{high[:8]}-{high[8:]}-7{low[:3]}-8{low[3:6]}-{low[6:]}".encode()
