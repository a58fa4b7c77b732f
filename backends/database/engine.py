"""The engine every process uses, with the time-outs that keep a frozen owner from stalling a room."""

from __future__ import annotations

import asyncpg
import msgspec
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

# What "the database is away for now" looks like, through SQLAlchemy, asyncpg or the socket.
DATABASE_AWAY_ERRORS: tuple[type[Exception], ...] = (
    OperationalError,
    InterfaceError,
    DBAPIError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server died in the middle of an operation
    OSError,
    TimeoutError,
)


REFUSED_VALUE_ERRORS: tuple[type[Exception], ...] = (DataError, asyncpg.DataError)  # a value that no column holds
# What is wrong with a statement or its data, and stays so however often it is tried: a bug. Some of these classes stand
# below one in DATABASE_AWAY_ERRORS, so catch them first.
STATEMENT_ERRORS: tuple[type[Exception], ...] = (
    IntegrityError,
    ProgrammingError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    *REFUSED_VALUE_ERRORS,
)


def to_json_text(value: object) -> str:
    """Return ``value`` as JSON that PostgreSQL takes: infinities and NaN, which JSON does not know, become null."""
    return msgspec.json.encode(value).decode()


def create_engine(
    url: str, *, application_name: str, idle_in_transaction_seconds: float = 3.0, pool_size: int = 5
) -> AsyncEngine:
    """Return an engine on ``url`` (``postgresql+asyncpg://``); nothing connects before first use."""
    engine = create_async_engine(
        url,
        json_serializer=to_json_text,
        pool_size=pool_size,
        max_overflow=5,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "timeout": 5,
            "command_timeout": 120,
            "server_settings": {
                "application_name": application_name,
                "idle_in_transaction_session_timeout": str(int(idle_in_transaction_seconds * 1000)),
                "jit": "off",
            },
        },
    )
    event.listen(engine.sync_engine, "handle_error", _named)
    return engine


def _named(context: ExceptionContext) -> Exception | None:
    """Call a value that the database cannot hold a DataError: SQLAlchemy's dialect knows no name for asyncpg's."""
    original = context.original_exception
    if isinstance(original.__cause__, asyncpg.DataError):
        return DataError(context.statement, context.parameters, original)
    return None
