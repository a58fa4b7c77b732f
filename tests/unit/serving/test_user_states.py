"""Reading user states on the request path."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from uuid import UUID, uuid4

import pytest

from backends.clock import ManualClock
from backends.database.repositories.states import StoredState
from modelkit.features import REDUCER_VERSION, UserState, encode_state
from schemas.errors import RetryLaterError
from serving.bootstrap import decoded
from serving.cache import ExpiringCache
from serving.user_states import Availability, UserStateReader

USER = uuid4()


class Rows:
    """Stored states that can be away or slow."""

    def __init__(self, row: StoredState | None = None) -> None:
        self.row = row
        self.away = False
        self.hangs = False
        self.fails_late = False  # the answer to a cancellation is an error
        self.queries = 0

    async def read(self, user_id: UUID) -> StoredState | None:
        """Return the row of everybody."""
        del user_id
        self.queries += 1
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if self.fails_late:
                    raise RetryLaterError from None
                raise
        if self.away:
            raise RetryLaterError
        return self.row


@pytest.fixture
def rows() -> Rows:
    """Give a database that knows the user."""
    return Rows(StoredState(REDUCER_VERSION, 7, encode_state(UserState(transactions=3))))


@pytest.fixture
def reader(rows: Rows, clock: ManualClock) -> UserStateReader:
    """Give a reader with a short patience."""
    return UserStateReader(rows, decoded, clock, cache=ExpiringCache(size=10, ttl_seconds=0.5), timeout_seconds=0.01)


async def test_a_known_user_is_read_once_within_the_time_to_live(
    reader: UserStateReader, rows: Rows, clock: ManualClock
) -> None:
    """A known user is read once within the time to live, and again after it."""
    found = await reader.read(USER)
    assert (found.availability, found.offset) == (Availability.KNOWN, 7)
    assert found.state is not None
    assert found.state.transactions == 3
    await reader.read(USER)
    assert rows.queries == 1
    clock.advance(0.5)
    await reader.read(USER)
    assert rows.queries == 2


async def test_a_user_without_events_is_unknown(reader: UserStateReader, rows: Rows) -> None:
    """A user without events is unknown, not unavailable."""
    rows.row = None
    assert (await reader.read(USER)).availability is Availability.UNKNOWN


@pytest.mark.parametrize("fault", ["away", "hangs"])
async def test_a_database_that_is_away_costs_a_few_requests_a_moment_and_the_others_nothing(
    reader: UserStateReader, rows: Rows, clock: ManualClock, fault: str
) -> None:
    """While the database is away, only a few requests a moment wait for it."""
    setattr(rows, fault, True)
    for _ in range(20):
        assert (await reader.read(USER)).availability is Availability.UNAVAILABLE
    assert rows.queries == 3
    setattr(rows, fault, False)
    clock.advance(1.0)
    assert (await reader.read(USER)).availability is Availability.KNOWN


async def test_a_database_that_answers_again_is_asked_for_everybody(
    reader: UserStateReader, rows: Rows, clock: ManualClock
) -> None:
    """One answer ends the pause: the next users are asked for at once."""
    rows.away = True
    for _ in range(3):
        await reader.read(USER)
    rows.away = False
    clock.advance(0.99)
    assert (await reader.read(uuid4())).availability is Availability.UNAVAILABLE
    clock.advance(0.01)
    answers = [(await reader.read(uuid4())).availability for _ in range(5)]
    assert answers == [Availability.KNOWN] * 5


async def test_failures_with_an_answer_between_them_do_not_add_up(
    reader: UserStateReader, rows: Rows, clock: ManualClock
) -> None:
    """Failures with a success between them do not add up."""
    for _ in range(4):
        rows.away = True
        for _ in range(2):
            assert (await reader.read(uuid4())).availability is Availability.UNAVAILABLE
        rows.away = False
        assert (await reader.read(uuid4())).availability is Availability.KNOWN
    assert rows.queries == 12
    assert clock.monotonic() == 0


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
async def test_a_query_that_was_given_up_ends_silently(reader: UserStateReader, rows: Rows, ending: str) -> None:
    """A query that was given up logs no error, whether it was cancelled or failed late."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    rows.hangs, rows.fails_late = True, ending == "failed"
    assert (await reader.read(USER)).availability is Availability.UNAVAILABLE
    await asyncio.wait({*reader._reading})  # unlike gather, it looks at no error
    gc.collect()
    assert reported == []


async def test_a_state_of_another_reducer_is_not_used(reader: UserStateReader, rows: Rows) -> None:
    """A state of another reducer version is not used."""
    rows.row = StoredState(REDUCER_VERSION + 1, 7, encode_state(UserState()))
    assert (await reader.read(USER)).availability is Availability.UNAVAILABLE


async def test_bytes_that_are_no_state_are_not_used(reader: UserStateReader, rows: Rows) -> None:
    """A damaged row costs the user the state, and the answer comes all the same."""
    rows.row = StoredState(REDUCER_VERSION, 7, b"\xc1")
    assert (await reader.read(USER)).availability is Availability.UNAVAILABLE
