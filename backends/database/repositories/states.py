"""User states by primary key, over asyncpg alone: a replica reads them on the request path and loads nothing heavier."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import asyncpg

from schemas.errors import RetryLaterError

if TYPE_CHECKING:
    from asyncpg.pool import Pool

# If the server dies in the middle of an operation, the connection raises an error of the client's own.
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
QUESTION = "SELECT reducer_version, state_offset, state FROM user_states WHERE user_id = $1"


class StoredState(NamedTuple):
    """One row: the encoded state, the reducer version that made it, and the last offset that is in it."""

    reducer_version: int
    state_offset: int
    state: bytes


class UserStateRows:
    """Reads user states. It connects at the first query, and again when a server comes back."""

    def __init__(self, url: str, *, connections: int, connect_seconds: float = 2.0, application_name: str = "") -> None:
        self._url = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._connections = connections
        self._connect_seconds = connect_seconds
        self._application_name = application_name
        self._pool: Pool | None = None

    async def start(self) -> None:
        """Create the pool without connecting."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._connections,
            timeout=self._connect_seconds,
            command_timeout=self._connect_seconds,
            server_settings={"application_name": self._application_name, "jit": "off"},
        )

    async def stop(self) -> None:
        """Close all connections at once; calling it twice is allowed."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def read(self, user_id: UUID) -> StoredState | None:
        """Return the state of ``user_id``, or None when there is none.

        Raises:
            RetryLaterError: when the database is away.
        """
        if self._pool is None:
            raise RetryLaterError("the pool of user states is not started")
        try:
            row = await self._pool.fetchrow(QUESTION, user_id)
        except _AWAY as error:
            raise RetryLaterError(repr(error)) from error
        return None if row is None else StoredState(**row)
