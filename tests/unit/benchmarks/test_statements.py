"""The SQL of our ingestion, recorded and replayed, on a real database."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from pydantic import SecretStr

from backends.clock import SystemClock
from backends.service_process import open_database
from benchmarks.ingestion import cost_table
from benchmarks.statements import PUBLISH, Recording, record_statements, replay_statements
from benchmarks.workload import behavioral_events
from fincoach_events.events import encode_event
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import Room
from streams.batches.batch import LedgerBatch
from streams.bootstrap import CONNECTIONS
from streams.settings import StreamsSettings
from tests.services import connect

TABLES = ("behavioral_events", "user_states", "panes", "outbox")


@dataclass
class Fetched:
    """A record as the transport gives it."""

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


async def test_the_replay_leaves_the_same_rows(database_url: str) -> None:
    """The replay of a recording leaves as many rows as the ingestion."""
    database = open_database(
        Room.STREAMS, StreamsSettings(database_url=SecretStr(database_url)), name="streams", connections=CONNECTIONS
    )
    try:
        record = await record_statements(
            database, SystemClock(), batches(size=50, count=4), state_cache_bytes=1_000_000
        )
        by_ingestion = await rows(database_url)
        await emptied(database_url)
        seconds = await replay_statements(database, record)
    finally:
        await database.close()
    assert by_ingestion["behavioral_events"] == 199
    assert by_ingestion["panes"] == 4
    assert await rows(database_url) == by_ingestion
    assert record.records == 200
    assert seconds > 0


async def test_every_call_of_a_batch_is_recorded_in_order(database_url: str) -> None:
    """Every call of a batch is recorded in order, the ledger first."""
    database = open_database(
        Room.STREAMS, StreamsSettings(database_url=SecretStr(database_url)), name="streams", connections=CONNECTIONS
    )
    try:
        async with asyncio.timeout(30):
            record = await record_statements(
                database, SystemClock(), batches(size=20, count=1), state_cache_bytes=1_000_000
            )
    finally:
        await database.close()
    names = [call.name for call in record.transactions[0].calls]
    assert names[0] == "advance_ledger"
    assert {"archive", "save_states", "save_pane", PUBLISH} <= set(names)


def test_the_cost_table_adds_up() -> None:
    """The parts of the table add up to the whole; unnamed ones are shown as everything else."""
    recording = Recording()
    recording.seconds.update({"archive": 0.5, "fold_new": 0.2, "whole": 1.0})
    shown = cost_table(recording, records=1_000)
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["500.00", "300.00", "200.00", "1000.00"]
