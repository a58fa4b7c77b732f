"""The account of how each accepted event ended: counters, what is owed to waiting callers, the host's callbacks."""

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

_REMEMBERED_FAILURES = 10_000  # flush() names at most so many; the counter knows all

_log = logging.getLogger("fincoach_events")


class Acknowledgement(NamedTuple):
    """Where the broker put an event; ``offset`` is -1 where a retry found it already there."""

    event_id: UUID | None
    partition: int
    offset: int


class DeliveryAccount:
    """Told once about the end of each event; a callback of the host that fails does not stop delivery."""

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
        """Return a future of the event's end; it raises UndeliveredEventsError when the event is given up."""
        waiting = self._waiting[slot.sequence] = asyncio.get_running_loop().create_future()
        return waiting

    def acknowledged(self, slot: Slot, *, partition: int, offset: int) -> None:
        """Note that the broker has the event."""
        self.acknowledged_events += 1
        waiting = self._waiting.pop(slot.sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(Acknowledgement(slot.outgoing.event_id, partition, offset))
        if self._on_acknowledged is not None:
            _call(self._on_acknowledged, slot.outgoing, partition, offset)

    def gave_up(self, slot: Slot, *, reason: str) -> None:
        """Note that the event will not be tried again."""
        self.undelivered_events += 1
        self._failures.append(event_name(slot.outgoing))
        waiting = self._waiting.pop(slot.sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(UndeliveredEventsError((event_name(slot.outgoing),)))
        if self._on_undelivered is not None:
            _call(self._on_undelivered, slot.outgoing, reason)

    def take_failures(self) -> tuple[str, ...]:
        """Return the events that were given up since the last call."""
        failures = tuple(self._failures)
        self._failures.clear()
        return failures


def event_name(outgoing: OutgoingEvent) -> str:
    """Return what an error calls the event."""
    return str(outgoing.event_id) if outgoing.event_id else "bytes without an id"


def _call(callback: Callable[..., None], *arguments: object) -> None:
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - foreign code at the edge of a background task
        _log.exception("delivery_callback_failed callback=%r", callback)
