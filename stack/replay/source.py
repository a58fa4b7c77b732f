"""The protocol of a replay's sources, the ids of their events, and the shift of a set to the present."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol
from uuid import UUID

import msgspec

from fincoach_events.events import AnyBehavioralEvent, GoalModified
from fincoach_events.identifiers import event_id_from_key, user_id_from_name
from schemas.errors import SettingsError


class RawRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are sent as they are, valid or not, with ``key`` and ``event_id`` where they can be read."""

    value: bytes
    key: bytes | None = None
    event_id: UUID | None = None


ReplayItem = AnyBehavioralEvent | RawRecord


class Source(Protocol):
    """A data set that can be played.

    Each replay of a set yields the same events with the same ids: in a second replay, all are duplicates.
    """

    @property
    def name(self) -> str:
        """The name of the set; its events carry ``source="replay:<name>"``."""
        ...

    @property
    def size(self) -> int | None:
        """The number of events, for a progress bar; None where it is unknown before the end."""
        ...

    @property
    def ends_at(self) -> dt.datetime | None:
        """The time of the last event; None where the source cannot be shifted in time."""
        ...

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield at most ``limit`` events, in order of time."""
        ...


class ShiftedSource:
    """A source shifted by whole days, so that it ends within the last day before ``now``.

    Whole days keep the hours. A shifted event differs from the original: its id names the shift, so both can be archived,
    and a second replay on the same day consists of duplicates.

    Raises:
        SettingsError: the end of the source is unknown (foreign lines are sent as they are).
    """

    def __init__(self, source: Source, *, now: dt.datetime) -> None:
        if source.ends_at is None:
            raise SettingsError(
                f"{source.name} cannot be shifted in time, because its lines are sent as they are: leave out --shift-to-now"
            )
        self._source = source
        self._days = (now - source.ends_at).days
        self.name = source.name
        self.size = source.size
        self.ends_at = source.ends_at + dt.timedelta(days=self._days)

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield the shifted events."""
        for item in self._source.events(limit):
            yield item if isinstance(item, RawRecord) else _shifted(item, self._days)


def shift_to_now(source: Source, now: dt.datetime) -> ShiftedSource:
    """Return ``source`` shifted so that it ends now; see :class:`ShiftedSource`."""
    return ShiftedSource(source, now=now)


def _shifted(event: AnyBehavioralEvent, days: int) -> AnyBehavioralEvent:
    shift = dt.timedelta(days=days)
    changes: dict[str, Any] = {
        "event_id": event_id_from_key(f"{event.event_id}:{days:+d}d"),
        "occurred_at": event.occurred_at + shift,
    }
    if isinstance(event, GoalModified) and event.due_at is not None:
        changes["due_at"] = event.due_at + shift
    return msgspec.structs.replace(event, **changes)


def envelope(set_name: str, row: str, *, user: str, occurred_at: dt.datetime) -> dict[str, Any]:
    """Return the envelope of the event of row ``row``, which is unique within its set.

    Consent is given: the sets are public research data, published for study.
    """
    return {
        "event_id": event_id_from_key(f"{set_name}:{row}"),
        "user_id": user_id(set_name, user),
        "occurred_at": occurred_at,
        "consent": True,
        "source": f"replay:{set_name}",
    }


@functools.lru_cache(maxsize=65_536)
def user_id(set_name: str, name: str) -> UUID:
    """Return the id of the user ``name`` of a set."""
    return user_id_from_name(set_name, name)


def at_most(limit: int | None, items: Iterable[ReplayItem]) -> Iterator[ReplayItem]:
    """Yield the first ``limit`` items, or all."""
    return itertools.islice(items, limit)
