"""What the transaction of a batch reads and writes: ledger, archive, user states, panes.

All of it runs over asyncpg inside the unit of work: bulk rows by COPY, everything else in one statement per batch.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import asyncpg
import sqlalchemy as sa

from backends.database import event_rows
from schemas.tables import PARTITIONED_TABLES

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from backends.database.unit_of_work import Database, UnitOfWork
    from schemas.topics import Topic

# What the server or the driver raises for a value that it cannot hold; another try ends the same way.
REFUSED_VALUES = (
    asyncpg.DataError,
    asyncpg.exceptions.ProgramLimitExceededError,
    asyncpg.InterfaceError,
    ValueError,
    OverflowError,
)

_ADVANCE = sa.text(
    "UPDATE ledger SET next_offset = :to_offset, updated_at = now()"
    " WHERE topic = :topic AND generation = :generation AND partition = :partition AND next_offset = :from_offset"
)


def _first_two(row: Sequence[Any]) -> tuple[UUID, dt.datetime]:
    return row[0], row[1]


class ArchiveTable(NamedTuple):
    """An archive table, the columns that a batch fills, how its key is read from a row, and how rows become bytes.

    Without ``encode`` the driver encodes the rows.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, str]
    key_of: Callable[[Sequence[Any]], tuple[UUID, dt.datetime]] = _first_two
    encode: Callable[[Sequence[Any]], Iterator[bytes]] | None = None


EVENTS = ArchiveTable(
    "behavioral_events",
    event_rows.COLUMNS,
    ("event_id", "occurred_at"),
    event_rows.key_of_event_row,
    event_rows.encode_event_rows,
)
PREDICTIONS = ArchiveTable(
    "predictions",
    ("prediction_id", "occurred_at", "user_id", "model_type", "version", "artifact_digest", "kind", "replica_id", "action_set",
     "action", "propensity", "payload", "generation", "partition", "offset"),
    ("prediction_id", "occurred_at"),
)  # fmt: skip
PAGE_ROWS = 2_000  # of archived events, folded anew in some 20 ms
_OFFSET = -1  # every archive row ends with its offset


@dataclass(slots=True)
class Archived:
    """The outcome of archiving: the offsets that are new, and those that the database refuses, with its reason."""

    new: set[int]
    refused: dict[int, str] = field(default_factory=dict)


class PaneRow(NamedTuple):
    """One row of the table of panes; ``counts`` is JSON text."""

    from_offset: int
    to_offset: int
    records: int
    archived: int
    duplicates: int
    dead_lettered: int
    not_consented: int
    counts: str
    sketches: bytes | None


class StateRow(NamedTuple):
    """A user's encoded state and the version of the reducer that made it."""

    reducer_version: int
    state: bytes


class SavedState(NamedTuple):
    """A user's state to write: the offset of the last event in it, and its bytes."""

    user_id: UUID
    offset: int
    state: bytes


def _first_of_each(rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    """Return the first row of each key; in both archive tables the key is the first two columns, id and time."""
    if len({row[0] for row in rows}) == len(rows):
        return rows
    first: dict[tuple[Any, Any], tuple[Any, ...]] = {}
    for row in rows:
        first.setdefault(row[:2], row)
    return list(first.values())


async def next_offsets(database: Database, topic: Topic, partitions: Sequence[int]) -> dict[int, int]:
    """Return the next offset of each partition; a partition that the ledger does not know begins at 0."""
    async with database.transaction() as work:
        driver = await begun_driver(work)
        await driver.execute(
            "INSERT INTO ledger (topic, generation, partition, next_offset)"
            " SELECT $1, $2, unnest($3::int[]), 0 ON CONFLICT DO NOTHING",
            topic.name, topic.generation, list(partitions),
        )  # fmt: skip
        rows = await driver.fetch(
            "SELECT partition, next_offset FROM ledger WHERE topic = $1 AND generation = $2 AND partition = ANY($3::int[])",
            topic.name, topic.generation, list(partitions),
        )  # fmt: skip
    return {row["partition"]: row["next_offset"] for row in rows}


async def ensure_month_partitions(database: Database, *, from_month: dt.date, months: int) -> None:
    """Ensure that the archive has its partitions for ``months`` months from ``from_month``."""
    async with database.transaction() as work:
        for parent in PARTITIONED_TABLES:
            await work.connection.execute(
                sa.text("SELECT ensure_month_partitions(:parent, :from_month, :months)"),
                {"parent": parent, "from_month": from_month, "months": months},
            )


async def begun_driver(work: UnitOfWork) -> asyncpg.Connection[Any]:
    """Return the driver's connection inside the begun transaction of ``work``."""
    await work.connection.execute(sa.text("SELECT 1"))
    return await work.driver()


class IngestionRepository:
    """The statements of one batch of one partition. Begin with :meth:`advance_ledger`: the rest depends on it."""

    def __init__(self, work: UnitOfWork, topic: Topic, partition: int) -> None:
        self._connection: AsyncConnection = work.connection
        self._work = work
        self._topic = topic
        self._partition = partition

    async def advance_ledger(self, from_offset: int, to_offset: int) -> bool:
        """Move the ledger by compare-and-set; return False if another worker has moved it: then drop everything."""
        place = {"topic": self._topic.name, "generation": self._topic.generation, "partition": self._partition}
        moved = await self._connection.execute(_ADVANCE, {**place, "from_offset": from_offset, "to_offset": to_offset})
        return bool(moved.rowcount == 1)

    async def states(self, users: Sequence[UUID]) -> dict[UUID, StateRow]:
        """Return the stored states of ``users``."""
        driver = await self._work.driver()
        rows = await driver.fetch(
            "SELECT user_id, reducer_version, state FROM user_states WHERE user_id = ANY($1::uuid[])", users
        )
        return {row["user_id"]: StateRow(row["reducer_version"], row["state"]) for row in rows}

    async def archived_payloads(self, users: Sequence[UUID]) -> AsyncIterator[tuple[UUID, str]]:
        """Yield (user, JSON text) of all archived events of ``users`` with consent, in the order of arrival.

        They come in pages: a user may have any number of events, and the transaction must not idle while the caller
        folds them.
        """
        driver = await self._work.driver()
        rows = driver.cursor(
            "SELECT user_id, payload::text AS payload FROM behavioral_events WHERE user_id = ANY($1::uuid[]) AND consent"
            ' ORDER BY generation, partition, "offset"',
            users, prefetch=PAGE_ROWS,
        )  # fmt: skip
        async for row in rows:
            yield row["user_id"], row["payload"]

    async def archive(
        self, table: ArchiveTable, rows: Sequence[tuple[Any, ...]], *, suspects: Collection[int] = ()
    ) -> Archived:
        """Insert ``rows``, in the order of their offsets; rows whose keys are archived already stay unchanged.

        Of rows with the same key, the first that the database can hold is inserted. Rows before it are refused, rows
        after it are duplicates, whatever they hold. The result is therefore the same however a log is cut into batches.
        ``suspects``: the offsets of rows that are probably archived; they are looked up first.
        """
        try:
            return Archived(new=await self._insert_new(table, _first_of_each(rows), suspects))
        except REFUSED_VALUES:
            known = await self._known(table, rows)
        unknown = [row for row in rows if row[_OFFSET] not in known]
        errors = await self._find_refused(table, unknown)
        firsts = _first_of_each([row for row in unknown if row[_OFFSET] not in errors])
        first_offsets = {row[:2]: row[_OFFSET] for row in firsts}
        refused = {
            row[_OFFSET]: errors[row[_OFFSET]]
            for row in unknown
            if row[_OFFSET] in errors and row[_OFFSET] <= first_offsets.get(row[:2], row[_OFFSET])
        }
        return Archived(new=await self._insert_new(table, firsts, ()), refused=refused)

    async def remove(self, table: ArchiveTable, offsets: Sequence[int]) -> None:
        """Take rows of this batch out of the archive again."""
        driver = await self._work.driver()
        await driver.execute(
            f'DELETE FROM {table.name} WHERE generation = $1 AND partition = $2 AND "offset" = ANY($3::bigint[])',  # noqa: S608 - a constant
            self._topic.generation, self._partition, list(offsets),
        )  # fmt: skip

    async def save_states(self, states: Sequence[SavedState], *, reducer_version: int) -> None:
        """Write the states in one statement."""
        if not states:
            return
        driver = await self._work.driver()
        users, offsets, encoded = zip(*states, strict=True)
        await driver.execute(
            "INSERT INTO user_states (user_id, reducer_version, partition, state_offset, state)"
            " SELECT u, $3, $4, o, s FROM unnest($1::uuid[], $2::bigint[], $5::bytea[]) AS t (u, o, s)"
            " ON CONFLICT (user_id) DO UPDATE SET reducer_version = excluded.reducer_version, partition = excluded.partition,"
            " state_offset = excluded.state_offset, state = excluded.state, updated_at = now()",
            users, offsets, reducer_version, self._partition, encoded,
        )  # fmt: skip

    async def save_pane(self, pane: PaneRow) -> None:
        """Write the pane of this batch."""
        driver = await self._work.driver()
        await driver.execute(
            "INSERT INTO panes (topic, generation, partition, from_offset, to_offset, records, archived, duplicates,"
            " dead_lettered, not_consented, counts, sketches) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            self._topic.name, self._topic.generation, self._partition, *pane,
        )  # fmt: skip

    async def last_sketches(self) -> bytes | None:
        """Return the sketches of this partition's newest pane, with its watermarks."""
        driver = await self._work.driver()
        found: bytes | None = await driver.fetchval(
            "SELECT sketches FROM panes WHERE topic = $1 AND generation = $2 AND partition = $3 ORDER BY from_offset DESC LIMIT 1",
            self._topic.name, self._topic.generation, self._partition,
        )  # fmt: skip
        return found

    async def _insert_new(
        self, table: ArchiveTable, rows: Sequence[tuple[Any, ...]], suspects: Collection[int]
    ) -> set[int]:
        """Return the offsets of the rows that were inserted.

        A plain COPY is tried first, because nearly every row is new. If it meets an unsuspected duplicate, all rows are
        looked up. Only if another transaction then inserts one first, the staging table decides row by row.
        """
        for looked_up in ([row for row in rows if row[_OFFSET] in suspects] if suspects else [], rows):
            known = await self._known(table, looked_up)
            fresh = [row for row in rows if row[_OFFSET] not in known] if known else rows
            if await self._copy(table, fresh):
                return {row[_OFFSET] for row in fresh}
        return await self._copy_by_staging(table, rows)

    async def _known(self, table: ArchiveTable, rows: Sequence[tuple[Any, ...]]) -> set[int]:
        """Return the offsets of those ``rows`` whose keys are archived."""
        if not rows:
            return set()
        driver = await self._work.driver()
        first, second = table.key
        keys = [table.key_of(row) for row in rows]
        found = await driver.fetch(
            "SELECT k.number FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS k (id, at, number)"  # noqa: S608 - constants
            f" JOIN {table.name} AS a ON a.{first} = k.id AND a.{second} = k.at",
            [key[0] for key in keys], [key[1] for key in keys],
        )  # fmt: skip
        return {rows[row["number"] - 1][_OFFSET] for row in found}

    async def _copy(self, table: ArchiveTable, rows: Sequence[tuple[Any, ...]]) -> bool:
        """Insert ``rows``, or insert nothing and return False if one of them is archived."""
        if not rows:
            return True
        driver = await self._work.driver()
        try:
            async with driver.transaction():
                await _copy_rows(driver, table, rows, into=table.name)
        except asyncpg.UniqueViolationError:
            return False
        return True

    async def _copy_by_staging(self, table: ArchiveTable, rows: Sequence[tuple[Any, ...]]) -> set[int]:
        driver = await self._work.driver()
        listed = ", ".join(f'"{column}"' for column in table.columns)
        staging = await self._staging(table)
        await _copy_rows(driver, table, rows, into=staging)
        inserted = await driver.fetch(
            f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {staging} ON CONFLICT DO NOTHING"  # noqa: S608 - constants
            ' RETURNING "offset"'
        )
        await driver.execute(f"TRUNCATE {staging}")
        return {row["offset"] for row in inserted}

    async def _staging(self, table: ArchiveTable) -> str:
        driver = await self._work.driver()
        name = f"incoming_{table.name}"
        await driver.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} (LIKE {table.name} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
        )
        return name

    async def _find_refused(self, table: ArchiveTable, rows: Sequence[tuple[Any, ...]]) -> dict[int, str]:
        """Return offset and reason of each row that the database cannot hold, by halving; each try is rolled back.

        For n rows it tries at most 2n - 1 parts; for none, none.
        """
        if not rows:
            return {}
        staging = await self._staging(table)
        refused: dict[int, str] = {}
        waiting = [rows]
        while waiting:
            part = waiting.pop()
            error = await self._refusal(table, staging, part)
            if error is None:
                continue
            if len(part) == 1:
                refused[part[0][_OFFSET]] = error
                continue
            waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
        return refused

    async def _refusal(self, table: ArchiveTable, staging: str, rows: Sequence[tuple[Any, ...]]) -> str | None:
        driver = await self._work.driver()
        trial = driver.transaction()
        await trial.start()
        try:
            await _copy_rows(driver, table, rows, into=staging)
        except REFUSED_VALUES as error:
            return str(error)
        finally:
            await trial.rollback()
        return None


async def _copy_rows(
    driver: asyncpg.Connection[Any], table: ArchiveTable, rows: Sequence[tuple[Any, ...]], *, into: str
) -> None:
    if table.encode is None:
        await driver.copy_records_to_table(into, records=rows, columns=table.columns)
    else:
        await driver.copy_to_table(into, source=_parts(table.encode(rows)), columns=table.columns, format="binary")


async def _parts(encoded: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in encoded:
        yield part
