"""The engine of every process, its time-outs, which keep a frozen lock owner from stalling a service, and what its errors mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg
import msgspec
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from schemas.errors import DatabaseAwayError, InvalidMessageError
from schemas.vocabulary import DeadLetterReason

# The errors of a database, as SQLAlchemy, asyncpg or the socket raise them.
DATABASE_AWAY_ERRORS: tuple[type[Exception], ...] = (
    DBAPIError,
    PoolTimeoutError,  # no connection became free
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server died in the middle of an operation
    OSError,  # and with it TimeoutError
)
# Of these, those that another try cannot mend: a value that no column or constraint accepts, or a missing reference.
REFUSED_VALUE_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.DataError,
    asyncpg.exceptions.ProgramLimitExceededError,
    asyncpg.NotNullViolationError,
    asyncpg.CheckViolationError,
    asyncpg.ForeignKeyViolationError,
)
# And errors of the statement itself, or that it should have prevented: bugs.
STATEMENT_ERRORS: tuple[type[Exception], ...] = (
    IntegrityError,
    ProgrammingError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate the database's errors inside the block into the errors of a handler.

    Raises:
        DatabaseAwayError: the server or the connection is away; a commit may or may not have been done.
        InvalidMessageError: a value that the database refuses, however often it is tried.
        Exception: anything else is a bug and is raised unchanged.
    """
    try:
        yield
    except DATABASE_AWAY_ERRORS as error:
        reason = _drivers(error)
        if isinstance(reason, REFUSED_VALUE_ERRORS):
            detail = f"the database cannot hold it: {getattr(error, 'orig', error)}"
            raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, detail) from error
        if isinstance(error, STATEMENT_ERRORS) or isinstance(reason, STATEMENT_ERRORS):
            raise
        raise DatabaseAwayError(repr(error)) from error


def _drivers(error: Exception) -> BaseException:
    """Return the driver's own error: SQLAlchemy keeps it as the cause of what it calls the original."""
    original = getattr(error, "orig", None)
    return error if original is None else original.__cause__ or original


def to_json_text(value: object) -> str:
    """Return ``value`` as JSON that PostgreSQL takes: infinities and NaN, which JSON does not know, become null."""
    return msgspec.json.encode(value).decode()


def create_engine(
    url: str, *, application_name: str, idle_in_transaction_seconds: float = 3.0, pool_size: int = 5
) -> AsyncEngine:
    """Return an engine on ``url`` (``postgresql+asyncpg://``); nothing connects before first use."""
    return create_async_engine(
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
