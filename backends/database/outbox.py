"""The relay: publishes a service's outbox rows, at least once and in order, and marks them after the acknowledgement.

Rows are found by their mark, never by a cursor: a transaction that commits late has lower ids than rows that
are already published. A transaction-scoped advisory lock lets one relay of a service work at a time; the
database's idle-in-transaction time-out ends a frozen one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from backends.waiting import wait_at_most
from schemas.errors import RetryLaterError
from schemas.tables import outbox
from schemas.topics import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from backends.broker.interface import OutgoingRecord
    from backends.database.unit_of_work import Database

log = get_logger("outbox")
RELAY_LOCK_NAMESPACE = 0x0B0C
BATCH_ROWS = 500
BATCH_BYTES = 4 * MIB  # of payloads in memory at once, or one that is larger
# Published and marked together: marking after each slice keeps the transaction from idling beyond its time-out.
SLICE_ROWS = 100


class Publisher(Protocol):
    """What the relay needs of a producer."""

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Send (topic, key, value, headers) in order; return when all are acknowledged.

        Raises:
            RetryLaterError: when the broker is away.
        """


class OutboxRelay:
    """Publishes the outbox of one service for as long as it runs."""

    def __init__(self, database: Database, publisher: Publisher, *, poll_seconds: float = 0.1) -> None:
        self._database = database
        self._publisher = publisher
        self._poll_seconds = poll_seconds
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Wake the relay: there may be something to publish."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled; back off while broker or database are away."""
        delay = self._poll_seconds
        while True:
            self._wake.clear()  # before looking, so that a wake during the look is not forgotten
            try:
                published = await self.publish_once()
            except RetryLaterError as error:
                delay = min(delay * 2, 5.0)
                log.warning("outbox_relay_delayed", error=repr(error), delay_seconds=delay)
                await asyncio.sleep(delay)
                continue
            delay = self._poll_seconds
            if published < BATCH_ROWS:
                await wait_at_most(self._wake, self._poll_seconds)

    async def publish_once(self) -> int:
        """Publish up to 500 rows, or 4 MiB, in one transaction; return how many. 0 also when another relay is at work.

        Rows that the broker has acknowledged are marked, even if it goes away in the middle.
        """
        async with self._database.transaction() as work:
            if not await self._is_alone(work.connection):
                return 0
            published = 0
            for rows in _slices(await self._waiting(work.connection)):
                try:
                    await self._publisher.publish_batch(
                        [(row.topic, row.key, row.payload, row.headers) for row in rows]
                    )
                except RetryLaterError:
                    if published:
                        break
                    raise
                marked = sa.update(outbox).where(outbox.c.id.in_([row.id for row in rows]))
                await work.connection.execute(marked.values(published_at=sa.func.now()))
                published += len(rows)
            METRICS.outbox_published.labels(service=str(self._database.service)).inc(published)
            return published

    async def _is_alone(self, connection: AsyncConnection) -> bool:
        name = sa.func.hashtext(str(self._database.service))
        return bool(await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(RELAY_LOCK_NAMESPACE, name))))

    async def _waiting(self, connection: AsyncConnection) -> Sequence[sa.Row[Any]]:
        """Return the oldest unpublished rows, at most as many as one round may hold."""
        waiting = (
            sa.select(outbox.c.id, sa.func.octet_length(outbox.c.payload).label("bytes"))
            .where(outbox.c.service == self._database.service, outbox.c.published_at.is_(None))
            .order_by(outbox.c.id)
            .limit(BATCH_ROWS)
            .subquery()
        )
        before = sa.func.sum(waiting.c.bytes).over(order_by=waiting.c.id) - waiting.c.bytes
        summed = sa.select(waiting.c.id, before.label("before")).subquery()
        chosen = sa.select(summed.c.id).where(sa.func.coalesce(summed.c.before, 0) < BATCH_BYTES)
        return (await connection.execute(sa.select(outbox).where(outbox.c.id.in_(chosen)).order_by(outbox.c.id))).all()


def _slices(rows: Sequence[sa.Row[Any]]) -> Iterator[Sequence[sa.Row[Any]]]:
    for start in range(0, len(rows), SLICE_ROWS):
        yield rows[start : start + SLICE_ROWS]
