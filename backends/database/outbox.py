"""The relay: publishes a room's outbox rows, at least once and in order, and marks them after the acknowledgement.

Rows are found by their mark, never by a cursor: a transaction that commits late has lower ids than rows that
are already published. An advisory lock, scoped to the transaction, lets one relay of a room work at a time;
a frozen one is ended by the database's idle-in-transaction time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from backends.database.engine import DATABASE_AWAY_ERRORS, STATEMENT_ERRORS
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas.errors import RetryLaterError
from schemas.tables import outbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backends.broker.interface import OutgoingRecord
    from backends.database.unit_of_work import Database

log = get_logger("outbox")
RELAY_LOCK_NAMESPACE = 0x0B0C
BATCH_ROWS = 500
RETRIED: tuple[type[Exception], ...] = (RetryLaterError, *DATABASE_AWAY_ERRORS)


class Publisher(Protocol):
    """What the relay needs of a producer."""

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Send (topic, key, value, headers) in order; return when all are acknowledged.

        Raises:
            RetryLaterError: when the broker is away.
        """


class OutboxRelay:
    """Publishes the outbox of one room for as long as it runs."""

    def __init__(self, database: Database, publisher: Publisher, *, poll_seconds: float = 0.1) -> None:
        self._database = database
        self._publisher = publisher
        self._poll_seconds = poll_seconds
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say that there may be something to publish now."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled; back off while broker or database are away."""
        delay = self._poll_seconds
        while True:
            self._wake.clear()  # before looking: what wakes the relay meanwhile is not forgotten
            try:
                published = await self.publish_once()
            except STATEMENT_ERRORS:  # tried again it would fail again: a bug, which stops the process
                raise
            except RETRIED as error:
                delay = min(delay * 2, 5.0)
                log.warning("outbox_relay_delayed", error=repr(error), delay_seconds=delay)
                await asyncio.sleep(delay)
                continue
            delay = self._poll_seconds
            if published < BATCH_ROWS:
                await self._wait()

    async def publish_once(self) -> int:
        """Publish up to 500 rows in one transaction; return how many. 0 also when another relay is at work."""
        async with self._database.transaction() as work:
            room = self._database.room
            locked = await work.connection.scalar(
                sa.select(sa.func.pg_try_advisory_xact_lock(RELAY_LOCK_NAMESPACE, sa.func.hashtext(str(room))))
            )
            if not locked:
                return 0
            waiting = (
                sa.select(outbox)
                .where(outbox.c.room == room, outbox.c.published_at.is_(None))
                .order_by(outbox.c.id)
                .limit(BATCH_ROWS)
            )
            rows = (await work.connection.execute(waiting)).all()
            if rows:
                await self._publisher.publish_batch([(row.topic, row.key, row.payload, row.headers) for row in rows])
                marked = (
                    sa.update(outbox)
                    .where(outbox.c.id.in_([row.id for row in rows]))
                    .values(published_at=sa.func.now())
                )
                await work.connection.execute(marked)
                METRICS.outbox_published.labels(room=str(room)).inc(len(rows))
            return len(rows)

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout=self._poll_seconds)
