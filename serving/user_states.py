"""A user's state for one request: from memory, from the database, or a quick "not available"."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas.errors import RetryLaterError
from serving.breaker import CircuitBreaker
from serving.cache import ExpiringCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.clock import Clock
    from backends.database.repositories.states import StoredState
    from modelkit.features.state import UserState

log = get_logger("serving.user_states")


class Availability(enum.StrEnum):
    """What is known about the user behind an answer."""

    KNOWN = "known"
    UNKNOWN = "unknown"  # no event of this user was archived yet
    UNAVAILABLE = "unavailable"  # the database did not answer in time
    GIVEN = "given"  # the caller brought the features


class FoundState(NamedTuple):
    """The decoded state, if there is one, and the last offset that is in it."""

    availability: Availability
    state: UserState | None = None
    offset: int | None = None


UNKNOWN = FoundState(Availability.UNKNOWN)
UNAVAILABLE = FoundState(Availability.UNAVAILABLE)
GIVEN = FoundState(Availability.GIVEN)


class StateRows(Protocol):
    """Where states are stored."""

    async def read(self, user_id: UUID) -> StoredState | None:
        """Return the stored state.

        Raises:
            RetryLaterError: when the database is away.
        """


class UserStateReader:
    """Reads states through a small cache, a time-out and a circuit breaker; never raises because the database is away."""

    def __init__(
        self,
        rows: StateRows,
        decode: Callable[[StoredState], UserState | None],
        clock: Clock,
        *,
        cache: ExpiringCache[UUID, FoundState],
        timeout_seconds: float,
    ) -> None:
        self._rows = rows
        self._decode = decode
        self._clock = clock
        self._cache = cache
        self._timeout_seconds = timeout_seconds
        self._breaker = CircuitBreaker()
        self._reading: set[asyncio.Task[StoredState | None]] = set()

    async def read(self, user_id: UUID) -> FoundState:
        """Return what is known of ``user_id``; takes no longer than the time-out."""
        now = self._clock.monotonic()
        cached = self._cache.get(user_id, now=now)
        if cached is not None:
            return cached
        found = await self._ask(user_id) if self._breaker.allows(now=now) else UNAVAILABLE
        if found is UNAVAILABLE:
            METRICS.serving_state_unavailable.inc()
        else:
            self._cache.put(user_id, found, now=now)
        return found

    async def _ask(self, user_id: UUID) -> FoundState:
        # A task of its own: giving a connection back to a frozen server may take far longer than a request may.
        task = asyncio.create_task(self._rows.read(user_id))
        self._reading.add(task)
        task.add_done_callback(self._finished)
        await asyncio.wait({task}, timeout=self._timeout_seconds)
        if not task.done():
            task.cancel()
            return self._failed("time-out")
        error = task.exception()
        if isinstance(error, RetryLaterError):
            return self._failed(str(error))
        self._breaker.succeeded()
        return self._found(task.result())

    def _found(self, row: StoredState | None) -> FoundState:
        if row is None:
            return UNKNOWN
        state = self._decode(row)
        return UNAVAILABLE if state is None else FoundState(Availability.KNOWN, state, row.state_offset)

    def _failed(self, reason: str) -> FoundState:
        was_open = self._breaker.is_open
        self._breaker.failed(now=self._clock.monotonic())
        if self._breaker.is_open and not was_open:
            log.warning("user_states_unavailable", reason=reason)
        return UNAVAILABLE

    def _finished(self, task: asyncio.Task[StoredState | None]) -> None:
        self._reading.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that a late failure is not reported as never retrieved
