"""One transaction: everything inside happens, or nothing does. The only place that commits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backends.database.engine import translated
from schemas.codec import AnyMessage, encode
from schemas.tables import outbox
from schemas.topics import Topic
from schemas.vocabulary import Service

if TYPE_CHECKING:
    import asyncpg


class UnitOfWork:
    """An open transaction of one service.

    ``connection`` runs SQL; :meth:`publish` adds outbox rows; :meth:`driver` gives asyncpg's own connection
    for COPY inside the same transaction (run one statement through ``connection`` first: that begins it).
    """

    def __init__(self, connection: AsyncConnection, service: Service) -> None:
        self.connection = connection
        self.service = service

    async def publish(self, topic: Topic, key: str, message: AnyMessage) -> None:
        """Add ``message`` to the outbox: it is published if and only if this transaction commits."""
        await self.publish_raw(topic, key.encode(), encode(message))

    async def publish_raw(
        self, topic: Topic, key: bytes | None, payload: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Add bytes to the outbox, with record headers."""
        await self.connection.execute(
            outbox.insert().values(
                service=self.service, topic=topic.name, key=key, payload=payload, headers=dict(headers or {})
            )
        )

    async def audit(self, *, actor: str, action: str, subject: str, outcome: str, details: Mapping[str, Any]) -> None:
        """Append to the hash-chained audit log. Call it last: it takes the chain's lock."""
        await self.connection.execute(
            text("SELECT append_audit(:actor, :action, :subject, :outcome, CAST(:details AS jsonb))"),
            {"actor": actor, "action": action, "subject": subject, "outcome": outcome, "details": _json(details)},
        )

    async def driver(self) -> asyncpg.Connection[Any]:
        """Return the underlying asyncpg connection."""
        raw = await self.connection.get_raw_connection()
        connection: asyncpg.Connection[Any] = raw.driver_connection
        return connection


class Database:
    """Opens units of work for one service."""

    def __init__(self, engine: AsyncEngine, service: Service) -> None:
        self.engine = engine
        self.service = service

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Commit at the end of the block; roll everything back when it raises.

        Raises:
            DatabaseAwayError: the database is away; the block may or may not have been committed.
            InvalidMessageError: the database refuses a value, however often it is tried.
        """
        with translated():
            async with self.engine.begin() as connection:
                yield UnitOfWork(connection, self.service)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for queries; anything written through it is rolled back. Raises as :meth:`transaction` does."""
        with translated():
            async with self.engine.connect() as connection:
                yield connection

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _json(details: Mapping[str, Any]) -> str:
    return msgspec.json.encode(details).decode()
