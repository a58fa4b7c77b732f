"""User states read from a real database on the request path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from backends.clock import SystemClock
from backends.database.repositories.states import UserStateRows
from modelkit.features import REDUCER_VERSION, UserState, encode_state
from schemas.errors import RetryLaterError
from serving.bootstrap import decoded
from serving.cache import ExpiringCache
from serving.user_states import Availability, UserStateReader
from tests.services import connect


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[UserStateRows]:
    """Give the states of a migrated database."""
    rows = UserStateRows(database_url, connections=4, application_name="test-replica")
    await rows.start()
    yield rows
    await rows.stop()


async def write(database_url: str, user_id: UUID, state: UserState) -> None:
    """Write a state as the streams service does."""
    connection = await connect(database_url)
    statement = (
        "INSERT INTO user_states (user_id, reducer_version, partition, state_offset, state) VALUES ($1, $2, 0, 41, $3)"
    )
    await connection.execute(statement, user_id, REDUCER_VERSION, encode_state(state))
    await connection.close()


def reader_of(rows: UserStateRows) -> UserStateReader:
    """Return a reader as a replica has it, without a cache."""
    return UserStateReader(
        rows, decoded, SystemClock(), cache=ExpiringCache(size=10, ttl_seconds=0), timeout_seconds=2.0
    )


async def test_a_state_comes_back_as_it_was_written(rows: UserStateRows, database_url: str) -> None:
    """A state comes back as it was written."""
    known, unknown, state = uuid4(), uuid4(), UserState(transactions=12, goals_achieved=2)
    await write(database_url, known, state)
    reader = reader_of(rows)
    found = await reader.read(known)
    assert (found.availability, found.state, found.offset) == (Availability.KNOWN, state, 41)
    assert (await reader.read(unknown)).availability is Availability.UNKNOWN


async def test_many_requests_share_the_few_connections(rows: UserStateRows, database_url: str) -> None:
    """A burst of requests queues for the few connections."""
    user = uuid4()
    await write(database_url, user, UserState())
    reader = reader_of(rows)
    answers = await asyncio.gather(*(reader.read(user) for _ in range(64)))
    assert {found.availability for found in answers} == {Availability.KNOWN}
    connection = await connect(database_url)
    count = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test-replica'")
    await connection.close()
    assert 1 <= count <= 4


async def test_a_broken_connection_is_replaced(rows: UserStateRows, database_url: str) -> None:
    """A broken connection is replaced within a few reads."""
    user = uuid4()
    await write(database_url, user, UserState())
    reader = reader_of(rows)
    assert (await reader.read(user)).availability is Availability.KNOWN
    connection = await connect(database_url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test-replica'"
    )
    await connection.close()
    answers = [(await reader.read(user)).availability for _ in range(3)]
    assert answers[-1] is Availability.KNOWN


async def test_a_database_that_is_away_is_said_to_be_away() -> None:
    """A database that is away raises the error that leads to a cold-start answer."""
    rows = UserStateRows("postgresql+asyncpg://nobody@127.0.0.1:1/none", connections=1)
    with pytest.raises(RetryLaterError, match="not started"):
        await rows.read(uuid4())
    await rows.start()
    with pytest.raises(RetryLaterError):
        await rows.read(uuid4())
    await rows.stop()
    await rows.stop()
