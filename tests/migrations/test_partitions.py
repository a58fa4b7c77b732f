"""Monthly partitions: rows find their month, months are made in time, by several at once, and under load."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.tables import PARTITIONED_TABLES

ENSURE = "SELECT ensure_month_partitions(:parent, CAST(:first AS text)::date, :months)"
CHILDREN = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:parent AS text)::regclass"
WHERE = "SELECT tableoid::regclass::text FROM behavioral_events WHERE event_id = CAST(:id AS text)::uuid"
INSERT = """
INSERT INTO behavioral_events
    (event_id, occurred_at, user_id, event_type, interaction_type, consent, source, payload, generation, partition, "offset")
VALUES (gen_random_uuid(), CAST(:moment AS text)::timestamptz, gen_random_uuid(), 'page_view', 'page_view', true,
    'host', '{}', 1, 0, 0)
RETURNING event_id::text
"""


async def ensure(engine: AsyncEngine, first: str, months: int, parent: str = "behavioral_events") -> int:
    """Make partitions from ``first`` on; return how many were made."""
    async with engine.begin() as connection:
        made: int = await connection.scalar(sa.text(ENSURE), {"parent": parent, "first": first, "months": months})
        return made


async def children(engine: AsyncEngine, parent: str) -> set[str]:
    """Return the names of all partitions."""
    async with engine.connect() as connection:
        return set((await connection.scalars(sa.text(CHILDREN), {"parent": parent})).all())


async def insert(connection: AsyncConnection, moment: str) -> str:
    """Archive one event of that moment; return its id."""
    event_id: str = await connection.scalar(sa.text(INSERT), {"moment": moment})
    return event_id


async def home(engine: AsyncEngine, event_id: str) -> str:
    """Return the partition in which an event lies."""
    async with engine.connect() as connection:
        name: str = await connection.scalar(sa.text(WHERE), {"id": event_id})
        return name


@pytest.mark.parametrize("parent", PARTITIONED_TABLES)
async def test_seventeen_months_history_and_default_are_there_from_the_start(engine: AsyncEngine, parent: str) -> None:
    """A new archive has seventeen months, a history and a default partition."""
    found = await children(engine, parent)
    assert {f"{parent}_default", f"{parent}_history"} <= found
    assert len(found) == 13 + 1 + 3 + 2


async def test_making_them_again_makes_nothing(engine: AsyncEngine) -> None:
    """Creating existing partitions again changes nothing."""
    assert await ensure(engine, "2030-01-15", 3) == 3
    assert await ensure(engine, "2030-01-15", 3) == 0
    assert await ensure(engine, "2030-02-01", 3) == 1


async def test_many_at_once_make_each_month_once(engine: AsyncEngine) -> None:
    """Workers that create the same months at once create each month once."""
    made = await asyncio.gather(*(ensure(engine, "2031-01-01", 6) for _ in range(6)))
    assert sum(made) == 6


async def test_months_within_history_are_left_to_it(engine: AsyncEngine) -> None:
    """Months within the history partition get no partition of their own."""
    assert await ensure(engine, "1997-01-01", 24) == 0


@pytest.mark.parametrize(
    ("moment", "partition"),
    [
        ("1997-05-01T00:00:00Z", "behavioral_events_history"),
        ("2030-01-31T23:59:59.999999Z", "behavioral_events_2030_01"),
        ("2030-02-01T00:00:00Z", "behavioral_events_2030_02"),
        ("2030-02-28T23:30:00-05:00", "behavioral_events_2030_03"),
        ("2077-01-01T00:00:00Z", "behavioral_events_default"),
    ],
)
async def test_rows_find_their_month_in_utc(engine: AsyncEngine, moment: str, partition: str) -> None:
    """Rows go to their month in UTC, also near midnight."""
    await ensure(engine, "2030-01-01", 3)
    async with engine.begin() as connection:
        event_id = await insert(connection, moment)
    assert await home(engine, event_id) == partition


async def test_bounds_do_not_depend_on_the_session(engine: AsyncEngine) -> None:
    """The bounds of months do not depend on the session's time zone."""
    async with engine.begin() as connection:
        await connection.execute(sa.text("SET LOCAL TimeZone TO 'Pacific/Auckland'"))
        await connection.execute(sa.text(ENSURE), {"parent": "behavioral_events", "first": "2030-05-01", "months": 2})
        event_id = await insert(connection, "2030-04-30T23:00:00Z")
        later = await insert(connection, "2030-05-01T00:00:00Z")
    assert await home(engine, event_id) == "behavioral_events_default"
    assert await home(engine, later) == "behavioral_events_2030_05"


async def test_rows_of_a_late_month_move_out_of_the_default(engine: AsyncEngine) -> None:
    """A month that is created late takes its rows out of the default partition."""
    async with engine.begin() as connection:
        event_id = await insert(connection, "2040-06-15T12:00:00Z")
        other = await insert(connection, "2040-07-15T12:00:00Z")
    assert await home(engine, event_id) == "behavioral_events_default"
    assert await ensure(engine, "2040-06-01", 1) == 1
    assert await home(engine, event_id) == "behavioral_events_2040_06"
    assert await home(engine, other) == "behavioral_events_default"


async def test_a_new_month_does_not_wait_for_a_transaction_in_another(engine: AsyncEngine) -> None:
    """A new month can be created during a transaction in another month."""
    await ensure(engine, "2032-01-01", 1)
    async with engine.begin() as connection:
        await insert(connection, "2032-01-10T00:00:00Z")
        assert await ensure(engine, "2032-02-01", 1) == 1


async def test_the_same_event_twice_is_refused_by_a_new_month(engine: AsyncEngine) -> None:
    """A month that is created later refuses the same event twice."""
    await ensure(engine, "2033-01-01", 1)
    async with engine.begin() as connection:
        event_id = await insert(connection, "2033-01-10T00:00:00Z")
    again = f"INSERT INTO behavioral_events SELECT * FROM behavioral_events WHERE event_id = '{event_id}'"  # noqa: S608 - our own id
    with pytest.raises(sa.exc.IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(sa.text(again))
