"""The table of dead letters: what batches write, what people ask, and what a retry sends again.

A record that fails again after a retry is a new dead letter, linked to the first by ``retry_of``. Only the last one of
such a chain can be retried, so nothing is sent twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schemas.dead_letters import ATTEMPT_HEADER, RETRY_OF_HEADER
from schemas.rows import DeadLetter, DeadLetterSummary, DeadLetterTry, ExceededLimit
from schemas.tables import dead_letters, exceeded_limits, outbox
from schemas.topics import DEAD_LETTERS, MIB, SPARE_BYTES, TOPICS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from backends.database.unit_of_work import UnitOfWork

LETTER_COLUMNS = (
    "topic", "generation", "partition", "offset", "key", "reason", "detail", "raw", "record_at", "producer", "attempts",
    "retry_of",
)  # fmt: skip
MOST_RETRIED_BYTES = 64 * MIB  # in one transaction, and through the memory of the relay
EXPORT_ROWS = 200

Row = TypeVar("Row", bound=msgspec.Struct)


class DeadLetterRow(NamedTuple):
    """One row of the table of dead letters, in the order of its columns."""

    topic: str
    generation: int
    partition: int
    offset: int
    key: bytes | None
    reason: str
    detail: str
    raw: bytes
    record_at: dt.datetime | None
    producer: str
    attempts: int = 0
    retry_of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters are chosen; None or empty means any. ``since`` and ``until`` are about when they were dead-lettered."""

    ids: Sequence[int] = ()
    reason: str | None = None
    topic: str | None = None
    producer: str | None = None
    partition: int | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every dead letter is chosen."""
        return self == LetterFilter()

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions that a row must meet."""
        d = dead_letters.c
        equal = {d.reason: self.reason, d.topic: self.topic, d.producer: self.producer, d.partition: self.partition}
        found = [column == value for column, value in equal.items() if value is not None]
        if self.ids:
            found.append(d.id.in_(self.ids))
        if self.since is not None:
            found.append(d.created_at >= self.since)
        if self.until is not None:
            found.append(d.created_at < self.until)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """When a dead letter is not sent again: after too many tries, or if it was sent already (except with ``again``)."""

    most_attempts: int
    again: bool = False
    limit: int = 1_000


class RetryFate(NamedTuple):
    """How many of the chosen dead letters have one outcome: ``retry``, or why they are left out."""

    fate: str
    reason: str
    letters: int


class DeadLetterQueries:
    """Answers queries about dead letters over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def listed(self, chosen: LetterFilter, *, limit: int) -> list[DeadLetterSummary]:
        """Return dead letters without their bytes, newest first."""
        d = dead_letters.c
        question = sa.select(
            d.id, d.topic, d.partition, d.offset, d.producer, d.reason, d.detail, _state().label("state"), d.attempts, d.retry_of,
            sa.func.length(d.raw).label("bytes"), d.record_at, d.created_at, d.retried_at, d.resolved_at,
        )  # fmt: skip
        newest = question.where(*chosen.conditions()).order_by(d.id.desc()).limit(limit)
        return await self._rows(DeadLetterSummary, newest)

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """Return one dead letter with everything that is known of it."""
        question = _whole().where(dead_letters.c.id == letter_id)
        found = await self._rows(DeadLetter, question)
        return found[0] if found else None

    async def chain(self, letter: DeadLetter) -> list[DeadLetterTry]:
        """Return all dead letters of the record in ``letter``, oldest first."""
        d, first = dead_letters.c, letter.retry_of or letter.id
        question = sa.select(d.id, d.reason, d.detail, _state().label("state"), d.attempts, d.created_at, d.retried_at)
        tries = question.where((d.id == first) | (d.retry_of == first)).order_by(d.id)
        return await self._rows(DeadLetterTry, tries)

    async def exported(self, chosen: LetterFilter, *, limit: int) -> AsyncIterator[DeadLetter]:
        """Yield dead letters with their bytes, oldest first, in pages."""
        d, last, left = dead_letters.c, 0, limit
        while left > 0:
            question = _whole().where(*chosen.conditions(), d.id > last)
            rows = await self._rows(DeadLetter, question.order_by(d.id).limit(min(left, EXPORT_ROWS)))
            for row in rows:
                yield row
            left = left - len(rows) if rows else 0
            last = rows[-1].id if rows else last

    async def fates(self, chosen: LetterFilter, rule: RetryRule) -> list[RetryFate]:
        """Return what a retry would do with the chosen dead letters."""
        fate = _fate(rule).label("fate")
        question = sa.select(fate, dead_letters.c.reason, sa.func.count().label("letters"))
        grouped = question.where(*chosen.conditions()).group_by(fate, dead_letters.c.reason)
        rows = await self._connection.execute(grouped.order_by(fate, dead_letters.c.reason))
        return [RetryFate(**row) for row in rows.mappings()]

    async def _rows(self, kind: type[Row], question: sa.Select[Any]) -> list[Row]:
        return [kind(**row) for row in (await self._connection.execute(question)).mappings()]


class DeadLetterRepository:
    """Writes dead letters, and what becomes of them, in one open transaction."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self.queries = DeadLetterQueries(work.connection)

    async def save(self, letters: Sequence[DeadLetterRow]) -> None:
        """Store new dead letters; their positions must not be in the table yet."""
        driver = await self._work.driver()
        await driver.copy_records_to_table("dead_letters", records=letters, columns=LETTER_COLUMNS)

    async def save_unknown(self, letter: DeadLetterRow) -> bool:
        """Store a dead letter if its position is not in the table yet; return whether it was new."""
        row = letter._asdict()
        statement = insert(dead_letters).values(**row).on_conflict_do_nothing().returning(dead_letters.c.id)
        return (await self._work.connection.execute(statement)).first() is not None

    async def announce(self, letters: Sequence[tuple[bytes, bytes, Mapping[str, str]]]) -> None:
        """Add (key, raw bytes, headers) to the outbox of the dead-letter topic."""
        driver = await self._work.driver()
        await driver.copy_records_to_table(
            "outbox",
            records=[
                (str(self._work.service), DEAD_LETTERS.name, key, raw, msgspec.json.encode(headers).decode())
                for key, raw, headers in letters
            ],
            columns=("service", "topic", "key", "payload", "headers"),
        )

    async def settle(self, first_ids: Collection[int]) -> None:
        """Mark all dead letters of records whose retry has been taken in; unknown ids are ignored."""
        d, ids = dead_letters.c, sa.literal(sorted(first_ids), sa.ARRAY(sa.BigInteger))  # one argument, however many
        named = (d.id == sa.any_(ids)) | (d.retry_of == sa.any_(ids))
        sent = d.retried_at.is_not(None) & d.resolved_at.is_(None) & named
        await self._work.connection.execute(sa.update(dead_letters).where(sent).values(resolved_at=sa.func.now()))

    async def remember_limit(self, producer: str, alert_id: UUID, detail: str) -> bool:
        """Record that ``producer`` exceeds a limit now; return whether this is new."""
        row = {"producer": producer, "alert_id": alert_id, "detail": detail}
        statement = insert(exceeded_limits).values(row)
        seen_again = statement.on_conflict_do_update(
            index_elements=[exceeded_limits.c.producer],
            set_={"exceeded_at": sa.func.now(), "detail": statement.excluded.detail},
        )
        is_new = await self._work.connection.scalar(seen_again.returning(sa.literal_column("xmax = 0")))
        return bool(is_new)

    async def forget_limits(self, seconds: float) -> list[ExceededLimit]:
        """Remove the producers that exceeded no limit for ``seconds``; return what was recorded of them."""
        e = exceeded_limits.c
        over = e.exceeded_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        statement = sa.delete(exceeded_limits).where(over).returning(exceeded_limits)
        return [ExceededLimit(**row) for row in (await self._work.connection.execute(statement)).mappings()]

    async def send_again(self, chosen: LetterFilter, rule: RetryRule) -> int:
        """Add the chosen dead letters to the outbox with their own key and bytes, mark them, and return their number.

        Of dead letters that two transactions choose, the second one sends those that the first one did not.
        """
        ids = await self._locked(await self._choice(chosen, rule), rule)
        if not ids:
            return 0
        d, connection = dead_letters.c, self._work.connection
        headers = sa.func.jsonb_build_object(
            RETRY_OF_HEADER, sa.cast(sa.func.coalesce(d.retry_of, d.id), sa.Text),
            ATTEMPT_HEADER, sa.cast(d.attempts + 1, sa.Text),
        )  # fmt: skip
        service = sa.literal(str(self._work.service))
        rows = sa.select(service, d.topic, d.key, d.raw, headers).where(d.id.in_(ids)).order_by(d.id)
        columns = ["service", "topic", "key", "payload", "headers"]
        await connection.execute(outbox.insert().from_select(columns, rows))
        marked = {"retried_at": sa.func.now(), "attempts": d.attempts + 1}
        await connection.execute(sa.update(dead_letters).where(d.id.in_(ids)).values(marked))
        return len(ids)

    async def _choice(self, chosen: LetterFilter, rule: RetryRule) -> list[int]:
        """Return the ids to send, oldest first, at most as many as one transaction may hold."""
        d = dead_letters.c
        question = sa.select(d.id, sa.func.length(d.raw).label("size")).where(
            *chosen.conditions(), _fate(rule) == "retry"
        )
        ids: list[int] = []
        total = 0
        for row in await self._work.connection.execute(question.order_by(d.id).limit(rule.limit)):
            total += row.size
            if total > MOST_RETRIED_BYTES and ids:
                break
            ids.append(row.id)
        return ids

    async def _locked(self, ids: Sequence[int], rule: RetryRule) -> list[int]:
        if not ids:
            return []
        free = sa.select(dead_letters.c.id).where(dead_letters.c.id.in_(ids), _fate(rule) == "retry")
        found = await self._work.connection.scalars(free.order_by(dead_letters.c.id).with_for_update(of=dead_letters))
        return list(found)


def _superseded() -> sa.ColumnElement[bool]:
    later, d = dead_letters.alias("later"), dead_letters.c
    return sa.exists().where(later.c.retry_of == sa.func.coalesce(d.retry_of, d.id), later.c.id > d.id)


def _whole() -> sa.Select[Any]:
    return sa.select(dead_letters, _state().label("state"))


def _state() -> sa.ColumnElement[str]:
    d = dead_letters.c
    return sa.case(
        (d.resolved_at.is_not(None), "resolved"),
        (_superseded(), "failed again"),
        (d.retried_at.is_not(None), "sent again"),
        else_="open",
    )


def _fate(rule: RetryRule) -> sa.ColumnElement[str]:
    d = dead_letters.c
    size = sa.func.length(d.raw) + sa.func.coalesce(sa.func.length(d.key), 0)
    limits = [(d.topic == topic.name, topic.max_message_bytes - SPARE_BYTES) for topic in TOPICS.values()]
    causes = [
        (d.resolved_at.is_not(None), "resolved"),
        (_superseded(), "failed again"),
        (d.attempts >= rule.most_attempts, "tried too often"),
        (size > sa.case(*limits, else_=0), "too large to send"),
    ]
    if not rule.again:
        causes.append((d.retried_at.is_not(None), "sent again"))
    return sa.case(*causes, else_="retry")
