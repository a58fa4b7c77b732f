"""What the tests of data sets share: the bench of streams over a fresh database, and a connection to look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from backends.clock import ManualClock
from tests.integration.streams_bench import Bench
from tests.integration.streams_workers import database_of
from tests.services import connect


@pytest.fixture
async def bench(database_url: str, clock: ManualClock) -> AsyncIterator[Bench]:
    """Give the bench over a fresh database."""
    async with database_of(database_url) as database:
        yield Bench(database, clock)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection to look at the database."""
    connection = await connect(database_url)
    yield connection
    await connection.close()
