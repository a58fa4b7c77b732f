"""Inserting rows into the archive of a real database: rows that are already there are always recognised."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from backends.database.event_rows import EventRow, key_of_event_row
from backends.database.repositories.ingestion import (
    EVENTS,
    PREDICTIONS,
    Archived,
    ArchiveTable,
    IngestionRepository,
    _copy_rows,
)
from backends.database.unit_of_work import Database
from schemas.topics import BEHAVIORAL_EVENTS
from tests.integration.streams_workers import database_of
from tests.services import connect

REFUSED = b'{"a": 1e200000}'  # JSON with a number that no column holds
AT = 1_772_625_600_000_000  # 2026-03-04 12:00 UTC


def row(number: int, *, payload: bytes = b'{"a": 1}', **changes: Any) -> EventRow:  # noqa: ANN401 - a column's value
    """Return archive row ``number``; offset and time follow from it."""
    values = {
        "event_id": uuid.uuid5(uuid.NAMESPACE_OID, f"event-{number}").bytes, "at": AT + number,
        "user_id": uuid.UUID(int=number).bytes, "event_type": "page_view", "interaction_type": "page_view", "consent": True,
        "source": "hôst", "payload": payload, "generation": 1, "partition": 3, "offset": number, **changes,
    }  # fmt: skip
    return tuple(values.values())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a fresh database."""
    async with database_of(database_url) as opened:
        yield opened


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the sizes of the parts that the search for rejected rows tries."""
    sizes: list[int] = []
    refusal = IngestionRepository._refusal

    async def counted(repository: IngestionRepository, *given: Any) -> str | None:  # noqa: ANN401 - the real one's own
        sizes.append(len(given[-1]))
        return await refusal(repository, *given)

    monkeypatch.setattr(IngestionRepository, "_refusal", counted)
    return sizes


async def archived(database: Database, rows: Sequence[EventRow], *, suspects: Sequence[int] = ()) -> set[int]:
    """Archive rows in a transaction of their own; return the offsets that are new."""
    async with database.transaction() as work:
        repository = IngestionRepository(work, BEHAVIORAL_EVENTS, 3)
        await repository.advance_ledger(0, 0)
        return (await repository.archive(EVENTS, rows, suspects=suspects)).new


async def test_a_row_is_stored_as_it_is(database: Database, database_url: str) -> None:
    """Each column holds its own value, and moments are exact."""
    made = row(7, consent=False)
    await archived(database, [made])
    connection = await connect(database_url)
    (found,) = await connection.fetch("SELECT * FROM behavioral_events")
    await connection.close()
    assert (found["event_id"].bytes, found["user_id"].bytes) == (made[0], made[2])
    assert found["occurred_at"] == dt.datetime(2026, 3, 4, 12, 0, 0, 7, tzinfo=dt.UTC) == key_of_event_row(made)[1]
    assert (found["event_type"], found["interaction_type"], found["consent"]) == ("page_view", "page_view", False)
    assert (found["source"], found["payload"]) == ("hôst", '{"a": 1}')
    assert (found["generation"], found["partition"], found["offset"]) == (1, 3, 7)


async def test_more_rows_than_one_part_arrive_once(database: Database, database_url: str) -> None:
    """A COPY of several parts inserts every row."""
    rows = [row(number) for number in range(1_000)]
    assert await archived(database, rows) == set(range(1_000))
    connection = await connect(database_url)
    assert await connection.fetchval("SELECT count(DISTINCT event_id) FROM behavioral_events") == 1_000
    await connection.close()


@pytest.mark.parametrize("suspects", [(), (3, 8), (3, 5, 8), (1, 2)])
async def test_repetitions_are_found_whoever_is_suspected(
    database: Database, database_url: str, suspects: Sequence[int]
) -> None:
    """Neither wrong nor missing suspicions change what is archived."""
    await archived(database, [row(3), row(8)])
    again = [row(number, offset=number) for number in range(10)]
    assert await archived(database, again, suspects=suspects) == set(range(10)) - {3, 8}
    connection = await connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 10
    await connection.close()


async def test_the_same_id_at_another_time_is_another_event(database: Database) -> None:
    """Only rows with the same id and the same time are repeats."""
    await archived(database, [row(3)])
    assert await archived(database, [row(3, at=AT, offset=20), row(3, offset=21)], suspects=[20, 21]) == {20}


async def test_what_another_transaction_inserts_meanwhile_is_no_error(database: Database) -> None:
    """An event that another transaction inserts in the meantime is a duplicate, not an error."""
    async with database.transaction() as work:
        repository = IngestionRepository(work, BEHAVIORAL_EVENTS, 3)
        await repository.advance_ledger(0, 0)
        look_up = repository._known

        async def look_up_too_early(table: Any, rows: Sequence[Any]) -> set[int]:  # noqa: ANN401 - the real one's own
            found = await look_up(table, rows)
            if rows:
                await archived(database, [row(4)])
            return found

        repository._known = look_up_too_early  # type: ignore[method-assign]
        assert (await repository.archive(EVENTS, [row(4), row(5)], suspects=[5])).new == {5}


async def test_what_the_database_cannot_hold_is_named(database: Database) -> None:
    """Rows that the database rejects are found, and the others are inserted."""
    async with database.transaction() as work:
        repository = IngestionRepository(work, BEHAVIORAL_EVENTS, 3)
        await repository.advance_ledger(0, 0)
        bad = row(2, payload=b'{"a": "\\ud800"}'), row(4, payload=b'{"a": "\xff"}')
        result = await repository.archive(EVENTS, [row(1), bad[0], row(3), bad[1]])
    assert result.new == {1, 3}
    assert set(result.refused) == {2, 4}


async def test_a_batch_of_refused_repetitions_has_nothing_to_try(database: Database, tried: list[int]) -> None:
    """A batch of only rejected repeats of archived events is a batch of duplicates, and needs no search."""
    await archived(database, [row(1), row(2)])
    again = [row(1, payload=REFUSED, offset=8), row(2, payload=REFUSED, offset=9)]
    async with database.transaction() as work:
        repository = IngestionRepository(work, BEHAVIORAL_EVENTS, 3)
        await repository.advance_ledger(0, 0)
        assert await repository.archive(EVENTS, again) == Archived(new=set(), refused={})
    assert tried == []


async def test_the_search_for_refused_rows_is_bounded_by_their_number(database: Database, tried: list[int]) -> None:
    """If all n rows are rejected, halving takes 2n - 1 tries, and no part is empty."""
    async with database.transaction() as work:
        repository = IngestionRepository(work, BEHAVIORAL_EVENTS, 3)
        await repository.advance_ledger(0, 0)
        result = await repository.archive(EVENTS, [row(number, payload=REFUSED) for number in range(13)])
    assert (result.new, set(result.refused)) == (set(), set(range(13)))
    assert len(tried) == 2 * 13 - 1
    assert min(tried) == 1


@pytest.mark.parametrize("table", [EVENTS, PREDICTIONS])
async def test_no_rows_are_copied_as_no_rows(database: Database, table: ArchiveTable) -> None:
    """A COPY without rows succeeds and inserts nothing."""
    async with database.transaction() as work:
        await work.connection.execute(sa.text("SELECT 1"))
        await _copy_rows(await work.driver(), table, [], into=table.name)
        assert await IngestionRepository(work, BEHAVIORAL_EVENTS, 3).archive(table, []) == Archived(new=set())
