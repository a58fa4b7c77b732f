"""Reads what a run left behind: the journals in its folder, the topics from their beginning, the tables. Judges nothing."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos.oracle.world import (
    LEDGER_TOPICS,
    READ_TOPICS,
    ArchivedEvent,
    DeadLetter,
    Deployment,
    Epoch,
    Job,
    Json,
    OutboxRow,
    Pane,
    Record,
    Send,
    StoredState,
    Training,
    World,
)

PATIENCE_SECONDS = 10.0  # of a consumer that gets no record although some are missing
MOST_CONSUMERS = 6
MOST_READINGS = 5  # of topics and tables; a row that is not marked by then counts as unmarked
FETCH_BYTES = 6 * 1024 * 1024
WIDE_TOPICS = LEDGER_TOPICS

_TABLES: Mapping[str, tuple[type[Any], str]] = {
    "archive": (ArchivedEvent, 'SELECT event_id::text, occurred_at, user_id::text, event_type, interaction_type, consent, source, payload, partition, "offset" FROM behavioral_events'),
    "panes": (Pane, "SELECT topic, partition, from_offset, to_offset, records, archived, duplicates, dead_lettered, not_consented, counts, closed_at FROM panes"),
    "dead_letters": (DeadLetter, 'SELECT topic, partition, "offset", reason, raw FROM dead_letters'),
    "states": (StoredState, "SELECT user_id::text, reducer_version, partition, state_offset, state FROM user_states"),
    "epochs": (Epoch, "SELECT model_type, epoch, counted, threshold, ranges FROM epochs"),
    "jobs": (Job, "SELECT model_type, epoch, status FROM training_jobs"),
    "trainings": (Training, "SELECT id::text, model_type, status, verdict, epochs FROM model_training_events"),
    "outbox": (OutboxRow, "SELECT id, service, topic, key, payload, published_at IS NOT NULL FROM outbox"),
    "deployments": (Deployment, "SELECT d.model_type, d.sequence, v.version FROM deployments d JOIN model_versions v ON v.id = d.active_version_id"),
}  # fmt: skip


async def read_world(folder: Path, *, brokers: str, database_url: str) -> World:
    """Return everything about the run in ``folder``. Call it after the producers have stopped.

    Some messages still arrive then, for example the end of an alert after a quiet minute. Topics and tables are therefore
    read again until every outbox row had been published before the ends of the topics were taken.
    """
    run = msgspec.json.decode((folder / "run.json").read_bytes())
    world = World(run=run, timeline=list(_lines(folder / "timeline.jsonl")), sends=list(read_journals(folder)))
    async with _connection(database_url) as connection:
        for _ in range(MOST_READINGS):
            marked = await connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NOT NULL")
            await _read_topics(world, brokers)
            await _read_tables(world, connection)
            if len(world.outbox) == marked:
                break
    return world


def read_journals(folder: Path) -> Iterator[Send]:
    """Yield the sends of all producers, each with whether it was acknowledged."""
    for journal in sorted((folder / "producers").glob("*.jsonl")):
        lines = list(_lines(journal))
        acknowledged = {line["id"] for line in lines if line["op"] == "ack"}  # ids are unique within a journal
        for line in lines:
            if line["op"] == "send":
                yield Send(
                    line["id"],
                    line["kind"],
                    line["valid"],
                    line["event"],
                    line["raw_sha256"],
                    line["id"] in acknowledged,
                )


def _lines(file: Path) -> Iterator[Json]:
    """Yield the lines of a journal. A killed process may leave a torn last line, which is skipped."""
    if not file.exists():
        return
    for line in file.read_bytes().split(b"\n"):
        try:
            yield msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue


async def _read_topics(world: World, brokers: str) -> None:
    """Read all topics from where the last reading ended. A consumer that gets nothing any more is replaced by a new one."""
    read_to = dict(world.ends)
    places = await _ends(world, brokers)
    records = {place.topic: list(world.records.get(place.topic, ())) for place in places}
    world.records = records
    left = {
        place: read_to.get((place.topic, place.partition), world.begins[place.topic, place.partition])
        for place in places
    }
    for _ in range(MOST_CONSUMERS):
        left = {place: at for place, at in left.items() if at < world.ends[place.topic, place.partition]}
        if not left:
            return
        async with _consumer(brokers) as consumer:
            await _read_on(consumer, world, records=records, left=left)
    raise TimeoutError(f"the topics could not be read to their ends; read up to here: {left}")


async def _ends(world: World, brokers: str) -> list[TopicPartition]:
    """Record where each partition begins and ends; return the partitions."""
    wide = int(world.run["wide_partitions"])
    async with _consumer(brokers) as consumer:
        existing = await consumer.topics()
        places = [
            TopicPartition(topic, number)
            for topic in READ_TOPICS
            if topic in existing
            for number in range(wide if topic in WIDE_TOPICS else 1)
        ]
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    world.begins = {(place.topic, place.partition): offset for place, offset in begins.items()}
    world.ends = {(place.topic, place.partition): offset for place, offset in ends.items()}
    return places


async def _read_on(
    consumer: AIOKafkaConsumer, world: World, *, records: dict[str, list[Record]], left: dict[TopicPartition, int]
) -> None:
    """Read partitions from ``left`` to their ends and update ``left``; return early when nothing arrives any more."""
    consumer.assign(list(left))
    for place, at in left.items():
        consumer.seek(place, at)
    quiet_since = time.monotonic()
    while any(at < world.ends[place.topic, place.partition] for place, at in left.items()):
        found: Mapping[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=500, max_records=10_000)
        for place, items in found.items():
            end = world.ends[place.topic, place.partition]
            records[place.topic] += [_record(item) for item in items if item.offset < end]
            left[place] = await consumer.position(place)
        if found:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > PATIENCE_SECONDS:
            behind = {place: at for place, at in left.items() if at < world.ends[place.topic, place.partition]}
            print(f"nothing came for {PATIENCE_SECONDS:.0f} s; a new consumer reads on from {behind}", file=sys.stderr)
            return


@asynccontextmanager
async def _consumer(brokers: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, enable_auto_commit=False, max_partition_fetch_bytes=FETCH_BYTES, fetch_max_wait_ms=50
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def _record(item: Any) -> Record:  # noqa: ANN401 - aiokafka ships no types
    headers = {name: value.decode(errors="replace") for name, value in item.headers}
    return Record(item.partition, item.offset, item.timestamp, item.key, item.value, headers)


async def _read_tables(world: World, connection: asyncpg.Connection) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for name, (kind, query) in _TABLES.items():
            setattr(world, name, [kind(*row) for row in await connection.fetch(query)])
        ledger = await connection.fetch("SELECT topic, partition, next_offset FROM ledger")
        predictions = await connection.fetch("SELECT prediction_id::text FROM predictions")
    world.ledger = {(row["topic"], row["partition"]): row["next_offset"] for row in ledger}
    world.predictions = [row["prediction_id"] for row in predictions]
    world.archive = [row._replace(occurred_at=row.occurred_at.astimezone(dt.UTC)) for row in world.archive]


@asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url.replace("postgresql+asyncpg://", "postgresql://", 1))
    try:
        await connection.set_type_codec("jsonb", encoder=str, decoder=msgspec.json.decode, schema="pg_catalog")
        yield connection
    finally:
        await connection.close()
