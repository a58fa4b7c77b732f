"""Keeps account of each accepted event's outcome: counters, the futures of waiting callers, the host's callbacks."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from fincoach_events.buffer import OutgoingEvent, Slot
from fincoach_events.errors import UndeliveredEventsError

AcknowledgedCallback = Callable[[OutgoingEvent, int, int], None]
UndeliveredCallback = Callable[[OutgoingEvent, str], None]

_REMEMBERED_FAILURES = 10_000  # flush() names at most this many; the counter counts all

_log = logging.getLogger("fincoach_events")


class Acknowledgement(NamedTuple):
    """Where the broker stored an event; ``offset`` is -1 when a retry found it already stored."""

    event_id: UUID | None
    partition: int
    offset: int


class DeliveryAccount:
    """Records the outcome of each event once; a failing callback of the host does not stop delivery."""

    def __init__(
        self, *, on_acknowledged: AcknowledgedCallback | None, on_undelivered: UndeliveredCallback | None
    ) -> None:
        self._on_acknowledged = on_acknowledged
        self._on_undelivered = on_undelivered
        self._waiting: dict[int, asyncio.Future[Acknowledgement]] = {}
        self._failures: collections.deque[str] = collections.deque(maxlen=_REMEMBERED_FAILURES)
        self.acknowledged_events = 0
        self.undelivered_events = 0

    def wait_for(self, slot: Slot) -> asyncio.Future[Acknowledgement]:
        """Return a future of the event's outcome; it raises UndeliveredEventsError when delivery gives the event up."""
        waiting = self._waiting[slot.sequence] = asyncio.get_running_loop().create_future()
        return waiting

    def acknowledged(self, slot: Slot, *, partition: int, offset: int) -> None:
        """Record that the broker has the event."""
        self.acknowledged_events += 1
        waiting = self._waiting.pop(slot.sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(Acknowledgement(slot.outgoing.event_id, partition, offset))
        if self._on_acknowledged is not None:
            _call(self._on_acknowledged, slot.outgoing, partition, offset)

    def gave_up(self, slot: Slot, *, reason: str) -> None:
        """Record that delivery will not try the event again."""
        self.undelivered_events += 1
        self._failures.append(event_name(slot.outgoing))
        waiting = self._waiting.pop(slot.sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(UndeliveredEventsError((event_name(slot.outgoing),)))
        if self._on_undelivered is not None:
            _call(self._on_undelivered, slot.outgoing, reason)

    def take_failures(self) -> tuple[str, ...]:
        """Return the events that delivery gave up since the last call."""
        failures = tuple(self._failures)
        self._failures.clear()
        return failures


def event_name(outgoing: OutgoingEvent) -> str:
    """Return the name of the event in error messages."""
    return str(outgoing.event_id) if outgoing.event_id else "bytes without an id"


def _call(callback: Callable[..., None], *arguments: object) -> None:
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - foreign code at the edge of a background task
        _log.exception("delivery_callback_failed callback=%r", callback)
