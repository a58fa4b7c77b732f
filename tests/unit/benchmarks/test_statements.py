"""The SQL of our ingestion, taken down and run again, on a real database."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from pydantic import SecretStr

from backends.clock import SystemClock
from benchmarks.ingestion import cost_table
from benchmarks.statements import PUBLISH, Record, run_again, take_down
from benchmarks.workload import behavioral_events
from fincoach_events.events import encode_event
from schemas.topics import BEHAVIORAL_EVENTS
from streams.batches.batch import LedgerBatch
from streams.bootstrap import open_database
from streams.settings import StreamsSettings
from tests.services import connect

TABLES = ("behavioral_events", "user_states", "panes", "outbox")


@dataclass
class Fetched:
    """A record as the reader gives it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def batches(*, size: int, count: int) -> list[LedgerBatch]:
    """Return batches of one partition, the last of which repeats an event of the first."""
    now = SystemClock().now()
    events = list(behavioral_events(size * count - 1, ends_at=now))
    events.append(events[0])
    records = [
        Fetched(offset, int(now.timestamp() * 1000), str(event.user_id).encode(), encode_event(event))
        for offset, event in enumerate(events)
    ]
    return [
        LedgerBatch(topic=BEHAVIORAL_EVENTS, partition=0, from_offset=start, records=records[start : start + size])
        for start in range(0, len(records), size)
    ]


async def rows(database_url: str) -> Counter[str]:
    """Return the number of rows of each table that a batch writes to."""
    connection = await connect(database_url)
    try:
        statement = "SELECT count(*) FROM {}"
        return Counter({table: await connection.fetchval(statement.format(table)) for table in TABLES})
    finally:
        await connection.close()


async def emptied(database_url: str) -> None:
    """Make the database fresh again."""
    connection = await connect(database_url)
    try:
        await connection.execute(f"TRUNCATE ledger, {', '.join(TABLES)}")
    finally:
        await connection.close()


async def test_run_again_it_leaves_the_same_rows(database_url: str) -> None:
    """The bare SQL that ingestion is compared with would do less, or more, than ingestion does."""
    database = open_database(StreamsSettings(database_url=SecretStr(database_url)))
    try:
        record = await take_down(database, SystemClock(), batches(size=50, count=4), state_cache_bytes=1_000_000)
        by_ingestion = await rows(database_url)
        await emptied(database_url)
        seconds = await run_again(database, record)
    finally:
        await database.close()
    assert by_ingestion["behavioral_events"] == 199
    assert by_ingestion["panes"] == 4
    assert await rows(database_url) == by_ingestion
    assert record.records == 200
    assert seconds > 0


async def test_every_call_of_a_batch_is_taken_down_in_order(database_url: str) -> None:
    """A statement would be missing from the comparison, or the archive written before the ledger moved."""
    database = open_database(StreamsSettings(database_url=SecretStr(database_url)))
    try:
        async with asyncio.timeout(30):
            record = await take_down(database, SystemClock(), batches(size=20, count=1), state_cache_bytes=1_000_000)
    finally:
        await database.close()
    names = [call.name for call in record.transactions[0].calls]
    assert names[0] == "advance_ledger"
    assert {"archive", "save_states", "save_pane", PUBLISH} <= set(names)


def test_the_cost_table_adds_up() -> None:
    """A part that nobody named would not be seen."""
    record = Record()
    record.seconds.update({"archive": 0.5, "fold_new": 0.2, "whole": 1.0})
    shown = cost_table(record, records=1_000)
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["500.00", "300.00", "200.00", "1000.00"]
