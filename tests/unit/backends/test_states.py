"""What a replica is told when the database dies under a question of its own."""

from __future__ import annotations

from unittest.mock import create_autospec
from uuid import UUID

import asyncpg
import pytest
from asyncpg.pool import Pool

from backends.database.repositories.states import UserStateRows
from schemas.errors import RetryLaterError

USER = UUID("6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11")
URL = "postgresql+asyncpg://fincoach@db.example/fincoach"


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
async def test_a_database_that_dies_in_the_middle_is_away(error: Exception) -> None:
    """A database that dies during a read counts as away (seen once in 874 reads under kill -9)."""
    rows = UserStateRows(URL, connections=1)
    pool = create_autospec(Pool, instance=True)
    pool.fetchrow.side_effect = error
    rows._pool = pool
    with pytest.raises(RetryLaterError):
        await rows.read(USER)
