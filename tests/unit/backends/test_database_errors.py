"""What the errors of a database mean to a handler."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backends.database.engine import translated
from schemas.errors import CommandRejectedError, DatabaseAwayError, InvalidMessageError, LostLeaseError, RetryLaterError


def wrapped(error: Exception, *, kind: type[DBAPIError] = DBAPIError) -> DBAPIError:
    """Return ``error`` as SQLAlchemy hands it on: below an error of its dialect."""
    original = Exception(f"{type(error)}: {error}")
    original.__cause__ = error
    return kind("SELECT 1", None, original)


REFUSED = [
    asyncpg.StringDataRightTruncationError("value too long for type character varying(100)"),
    asyncpg.NumericValueOutOfRangeError("integer out of range"),
    asyncpg.DataError("invalid input for query argument $1"),
    asyncpg.ProgramLimitExceededError("index row size 3000 exceeds btree version 4 maximum 2704"),
    asyncpg.NotNullViolationError("null value"),
    asyncpg.CheckViolationError("known_service"),
    asyncpg.ForeignKeyViolationError("is not present in table"),
]
BUGS = [
    asyncpg.UniqueViolationError("duplicate key"),
    asyncpg.ExclusionViolationError("conflicts"),
    asyncpg.UndefinedTableError("relation does not exist"),
    asyncpg.PostgresSyntaxError("syntax error"),
    asyncpg.InsufficientPrivilegeError("permission denied"),
]
AWAY = [
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.IdleInTransactionSessionTimeoutError("terminating connection"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("sorry, too many clients already"),
    asyncpg.DiskFullError("could not extend file"),
    asyncpg.DeadlockDetectedError("deadlock detected"),
    asyncpg.SerializationError("could not serialize access"),
    asyncpg.LockNotAvailableError("lock timeout"),
    asyncpg.QueryCanceledError("canceling statement"),
    asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
    asyncpg.InvalidCachedStatementError("cached statement plan is invalid"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 12"),
]


def raised(error: Exception) -> Exception:
    """Return what comes out when ``error`` is raised inside."""
    with pytest.raises(Exception) as caught, translated():  # noqa: PT011 - whatever comes
        raise error
    return caught.value


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: type(error).__name__)
def test_what_no_other_try_mends_is_an_invalid_message(error: Exception) -> None:
    """A record with a value that the database refuses is put aside, with the reason that the database gives."""
    for found in (raised(error), raised(wrapped(error)), raised(wrapped(error, kind=IntegrityError))):
        assert isinstance(found, InvalidMessageError)
        assert found.reason == "invalid_field"
        assert str(error) in found.detail


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_mistake_of_ours_comes_out_as_it_is(error: Exception) -> None:
    """A wrong statement is neither waited for nor blamed on a message: it stops the process."""
    for kind in (DBAPIError, ProgrammingError, IntegrityError):
        inside = wrapped(error, kind=kind)
        assert raised(inside) is inside
    assert raised(error) is error


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_what_another_try_may_mend_is_retried_later(error: Exception) -> None:
    """An outage costs no record and stops no process."""
    for inside in (error, wrapped(error), wrapped(error, kind=OperationalError)):
        found = raised(inside)
        assert isinstance(found, DatabaseAwayError)
        assert isinstance(found, RetryLaterError)
        assert found.__cause__ is inside


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "refused"), TimeoutError(), PoolTimeoutError("QueuePool limit")]
)
def test_a_server_that_cannot_be_reached_is_away(error: Exception) -> None:
    """A worker whose database restarts, or whose connections are all in use, waits."""
    assert isinstance(raised(error), DatabaseAwayError)


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("a bug"),
        StatementError("cannot encode", "SELECT 1", None, TypeError("a set")),
        CommandRejectedError("there is nothing before it"),
        InvalidMessageError("not_json", "no JSON"),
        RetryLaterError("the broker is away"),
        LostLeaseError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_others_say_inside_comes_out_as_it_is(error: Exception) -> None:
    """A refusal, an outage of the broker or a bug is not taken for a word of the database."""
    assert raised(error) is error
