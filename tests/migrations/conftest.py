"""Databases for the tests of the schema: one that is empty, and one at the newest revision."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from backends.database.engine import create_engine
from tests.services import connect, database_address, unique


@contextlib.asynccontextmanager
async def new_database(server: str, *, template: str = "template1") -> AsyncIterator[str]:
    """Give the address of a new database on ``server``; drop it afterwards."""
    name = unique("schema")
    await execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield database_address(server, name)
    finally:
        await execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def execute(server: str, statement: str) -> None:
    """Carry out one statement outside any transaction."""
    connection = await connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def empty_database(postgres_server: str) -> AsyncIterator[str]:
    """Give the address of a new database without any table."""
    async with new_database(postgres_server) as url:
        yield url


@pytest.fixture
async def migrated_database(postgres_server: str, template_database: str) -> AsyncIterator[str]:
    """Give the address of a new database at the newest revision."""
    async with new_database(postgres_server, template=template_database) as url:
        yield url


@pytest.fixture
async def engine(migrated_database: str) -> AsyncIterator[AsyncEngine]:
    """Give an engine on a database at the newest revision."""
    engine = create_engine(migrated_database, application_name="tests", idle_in_transaction_seconds=60)
    try:
        yield engine
    finally:
        await engine.dispose()
