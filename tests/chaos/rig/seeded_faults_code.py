"""The seeded faults: each replaces a function of the product by a wrong one, in the process that ``launch.py`` starts."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from backends.database.unit_of_work import UnitOfWork
from tests.chaos.rig.seams import SeamGoneError, found

_REPOSITORY = "backends.database.repositories.ingestion:IngestionRepository"
_DATASETS = "backends.database.repositories.datasets:DatasetRepository"
_RELAY = "backends.database.outbox:OutboxRelay.publish_once"


def _replace(target: str, wrong: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, attribute, original = found(target)
    setattr(owner, attribute, wrong(original))


def _attribute(thing: object, name: str) -> Any:  # noqa: ANN401 - whatever the product keeps there
    """Return a private attribute of the product.

    Raises:
        SeamGoneError: it is gone.
    """
    try:
        return getattr(thing, name)
    except AttributeError as error:
        raise SeamGoneError(f"the seam {type(thing).__name__}.{name} is gone; update it in tests/chaos") from error


@contextlib.asynccontextmanager
async def _elsewhere(holder: Any) -> AsyncIterator[None]:  # noqa: ANN401 - a repository
    """Let the block write through its own connection, which commits at once: all that ``holder`` writes through is exchanged.

    Raises:
        SeamGoneError: ``holder`` writes through nothing that is known here.
    """
    kept = dict(vars(holder))
    connection = next((found for found in map(_connection_of, kept.values()) if found is not None), None)
    if connection is None:
        raise SeamGoneError(f"{type(holder).__name__} holds no connection any more; update this in tests/chaos")
    async with connection.engine.begin() as own:
        await own.execute(sa.text("SELECT 1"))  # begins the transaction that the driver's own statements join
        driver = (await own.get_raw_connection()).driver_connection
        for name, value in kept.items():
            if isinstance(value, UnitOfWork):
                setattr(holder, name, UnitOfWork(own, value.service))
            elif isinstance(value, AsyncConnection):
                setattr(holder, name, own)
            elif isinstance(value, asyncpg.Connection):
                setattr(holder, name, driver)
        try:
            yield
        finally:
            vars(holder).update(kept)


def _connection_of(value: object) -> AsyncConnection | None:
    if isinstance(value, UnitOfWork):
        return value.connection
    return value if isinstance(value, AsyncConnection) else None


def offset_before_work() -> None:
    """The ledger advances before the work is done, in a transaction of its own."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        async def advance_ledger(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the product's own
            async with _elsewhere(self):
                return await original(self, *args, **kwargs)

        return advance_ledger

    _replace(f"{_REPOSITORY}.advance_ledger", wrong)


def no_compare_and_set() -> None:
    """The ledger is set without comparing it first."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        async def advance_ledger(self: Any, from_offset: int, to_offset: int) -> bool:  # noqa: ANN401 - see above
            stands = await _attribute(self, "_work").connection.scalar(
                sa.text("SELECT next_offset FROM ledger WHERE topic = :topic AND partition = :partition FOR UPDATE"),
                {"topic": _attribute(self, "_topic").name, "partition": _attribute(self, "_partition")},
            )
            return bool(await original(self, from_offset if stands is None else stands, to_offset))

        return advance_ledger

    _replace(f"{_REPOSITORY}.advance_ledger", wrong)


def start_from_committed() -> None:
    """A worker starts at its group's committed offset, not at the ledger's."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        async def next_offsets(database: Any, topic: Any, partitions: list[int]) -> dict[int, int]:  # noqa: ANN401 - see above
            await original(database, topic, partitions)
            group_positions = importlib.import_module("backends.broker.positions").group_positions
            brokers = importlib.import_module("streams.settings").StreamsSettings().brokers
            committed = await group_positions(brokers, importlib.import_module("streams.reading.ledger").GROUP)
            return {number: committed.get((topic.name, number), 0) for number in partitions}

        return next_offsets

    _replace("streams.bootstrap:next_offsets", wrong)


def no_contiguity_guard() -> None:
    """Records are accepted even after a gap."""

    def wrong(_: Callable[..., Any]) -> Callable[..., Any]:
        async def check_gap(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - see above
            """Accept every gap."""

        return check_gap

    _replace("backends.broker.partitions:PartitionReader._check_gap", wrong)


def duplicates_counted() -> None:
    """An event that is already archived counts as new."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        async def archive(self: Any, table: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - see above
            archived = await original(self, table, rows, *args, **kwargs)
            archived.new |= {row[-1] for row in rows if row[-1] not in archived.refused}
            return archived

        return archive

    _replace(f"{_REPOSITORY}.archive", wrong)


class _Always(int):
    """An offset that equals every other one."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, int)


class _Kept(dict[Any, Any]):
    """A memory that keeps what is removed and treats it as current, wherever the ledger stands."""

    def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401 - a dictionary
        memory = super().get(key, default)
        if memory is not None:
            memory.through = _Always(_attribute(memory, "through"))
        return memory

    def pop(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401 - see above
        return self.get(key, default)


def cache_kept() -> None:
    """Cached states survive a lost compare and a revocation, whatever others have written since."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        def begin(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - see above
            original(self, *args, **kwargs)
            _attribute(self, "_memories")
            self._memories = _Kept()

        return begin

    _replace("streams.batches.events:EventIngestion.__init__", wrong)
    _replace("streams.batches.events:EventIngestion.forget", lambda _: lambda self, partition: None)  # noqa: ARG005 - forgets nothing


def pane_outside() -> None:
    """The pane is written in a transaction of its own, before the batch commits."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        async def save_pane(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - see above
            async with _elsewhere(self):
                return await original(self, *args, **kwargs)

        return save_pane

    _replace(f"{_REPOSITORY}.save_pane", wrong)


def _unpublished(service: object, *, behind: int = 0) -> sa.Select[Any]:
    outbox = importlib.import_module("schemas.tables").outbox
    waiting = sa.select(outbox).where(outbox.c.service == service, outbox.c.id > behind)
    return waiting.order_by(outbox.c.id).limit(500)


async def _mark(connection: Any, rows: Any) -> None:  # noqa: ANN401 - rows of the outbox
    outbox = importlib.import_module("schemas.tables").outbox
    ids = [row.id for row in rows]
    await connection.execute(sa.update(outbox).where(outbox.c.id.in_(ids)).values(published_at=sa.func.now()))


async def _publish(relay: Any, rows: Any) -> None:  # noqa: ANN401 - see above
    await _attribute(relay, "_publisher").publish_batch(
        [(row.topic, row.key, row.payload, row.headers) for row in rows]
    )


def relay_by_cursor() -> None:
    """The relay continues after the highest published row, so it never sees a lower id that commits later."""

    def wrong(_: Callable[..., Any]) -> Callable[..., Any]:
        async def publish_once(self: Any) -> int:  # noqa: ANN401 - see above
            database = _attribute(self, "_database")
            async with database.transaction() as work:
                behind = await work.connection.scalar(
                    sa.text(
                        "SELECT coalesce(max(id), 0) FROM outbox WHERE service = :service AND published_at IS NOT NULL"
                    ),
                    {"service": str(database.service)},
                )
                rows = (await work.connection.execute(_unpublished(database.service, behind=behind))).all()
                if rows:
                    await _publish(self, rows)
                    await _mark(work.connection, rows)
            return len(rows)

        return publish_once

    _replace(_RELAY, wrong)


def marked_first() -> None:
    """Rows are marked as published before the broker has them."""

    def wrong(_: Callable[..., Any]) -> Callable[..., Any]:
        async def publish_once(self: Any) -> int:  # noqa: ANN401 - see above
            database = _attribute(self, "_database")
            outbox = importlib.import_module("schemas.tables").outbox
            async with database.transaction() as work:
                waiting = _unpublished(database.service).where(outbox.c.published_at.is_(None)).with_for_update()
                rows = (await work.connection.execute(waiting)).all()
                if rows:
                    await _mark(work.connection, rows)
            if rows:
                await _publish(self, rows)
            return len(rows)

        return publish_once

    _replace(_RELAY, wrong)


def cursor_outside() -> None:
    """The cursors of a data set move in a transaction of their own, before the epoch commits."""

    def wrong(original: Callable[..., Any]) -> Callable[..., Any]:
        async def move_cursors(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - see above
            async with _elsewhere(self):
                return await original(self, *args, **kwargs)

        return move_cursors

    _replace(f"{_DATASETS}.move_cursors", wrong)


def _named(*faults: Callable[[], None]) -> Iterator[tuple[str, Callable[[], None]]]:
    for fault in faults:
        yield fault.__name__.replace("_", "-"), fault


FAULT_CODE: dict[str, Callable[[], None]] = dict(
    _named(
        offset_before_work,
        no_compare_and_set,
        start_from_committed,
        no_contiguity_guard,
        duplicates_counted,
        cache_kept,
        pane_outside,
        relay_by_cursor,
        marked_first,
        cursor_outside,
    )
)
