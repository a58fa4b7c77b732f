"""How fast events are archived, folded and counted: our worker against the bare SQL and against a Faust agent that only counts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from backends.broker.kafka import create_topics
from backends.clock import SystemClock
from benchmarks.ratios import Comparison, Samples, compare
from benchmarks.services import WIDE_PARTITIONS, BenchmarkError, Services, connected, running
from benchmarks.statements import Record, run_again, take_down
from benchmarks.workload import behavioral_events
from fincoach_events import EventProducer, ProducerSettings
from fincoach_events.events import encode_event
from schemas.topics import BEHAVIORAL_EVENTS, Topic
from schemas.vocabulary import Room
from streams.batches import LedgerBatch
from streams.bootstrap import open_database
from streams.settings import StreamsSettings

if TYPE_CHECKING:
    import asyncpg

    from benchmarks.plan import Plan, Say

NAIVE, BARE = "ingest_vs_naive_faust", "ingest_vs_bare_sql"
NAIVE_NAME = "Faust agent, table[key] += 1, memory store, nothing archived"
BARE_NAME = "the same SQL with ready-made rows"
UNIT = "events/s"
PEER_SCRIPT = Path(__file__).parent / "peers" / "naive_faust.py"
_LOOK_SECONDS = 0.02
_RUN_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Pane:
    """The offsets of one batch of the worker."""

    partition: int
    from_offset: int
    to_offset: int


async def preload(services: Services, *, events: int) -> None:
    """Put the events on the topic with our producer; returns when all are acknowledged.

    Raises:
        BenchmarkError: the broker did not take all of them.
    """
    settings = ProducerSettings(max_block_seconds=60.0)
    async with EventProducer(services.brokers, consent_default=True, source="bench", settings=settings) as producer:
        for event in behavioral_events(events, ends_at=SystemClock().now()):
            await producer.send_bytes(encode_event(event), key=str(event.user_id).encode(), event_id=event.event_id)
        await producer.flush(60.0)
        if producer.acknowledged != events:
            raise BenchmarkError(f"the broker acknowledged {producer.acknowledged} of {events} events")


async def our_rate(services: Services, *, events: int) -> tuple[float, list[Pane]]:
    """Let a worker drain the topic into a fresh database; return events a second between its first and last commit, and its panes.

    Raises:
        BenchmarkError: what the database holds afterwards is not every event once.
    """
    async with services.database() as url, connected(url) as connection:
        async with services.room(Room.STREAMS, database_url=url, ready_path="/health/live"):
            rate = await _ledger_rate(connection, events=events)
        return rate, await _checked_panes(connection, events=events)


async def _ledger_rate(connection: asyncpg.Connection, *, events: int) -> float:
    first: tuple[float, int] | None = None
    async with asyncio.timeout(_RUN_SECONDS):
        while True:
            reached = await connection.fetchval(
                "SELECT coalesce(sum(next_offset), 0)::bigint FROM ledger WHERE topic = $1", BEHAVIORAL_EVENTS.name
            )
            now = time.perf_counter()
            if first is None and reached > 0:
                first = now, reached
            if first is not None and reached >= events:
                return float((reached - first[1]) / (now - first[0]))
            await asyncio.sleep(_LOOK_SECONDS)


async def _checked_panes(connection: asyncpg.Connection, *, events: int) -> list[Pane]:
    archived = await connection.fetchval("SELECT count(*) FROM behavioral_events")
    counted = await connection.fetchval("SELECT sum(archived) FROM panes WHERE topic = $1", BEHAVIORAL_EVENTS.name)
    if archived != events or counted != events:
        raise BenchmarkError(f"of {events} events {archived} were archived and {counted} counted")
    rows = await connection.fetch(
        "SELECT partition, from_offset, to_offset FROM panes WHERE topic = $1 ORDER BY closed_at, partition, from_offset",
        BEHAVIORAL_EVENTS.name,
    )
    return [Pane(row["partition"], row["from_offset"], row["to_offset"]) for row in rows]


async def naive_rate(services: Services, *, events: int, round_number: int) -> float:
    """Let a Faust agent count the first ``events`` events of the topic; return events a second between the first and the last."""
    app_id = f"naive-{round_number}"
    changelog = Topic(
        name=f"{app_id}-counts-changelog", key="key", messages=(), producers=(), consumers=(),
        retention_seconds=None, wide=True, cleanup="compact", tag_field="none",
    )  # fmt: skip
    await create_topics(services.brokers, wide_partitions=WIDE_PARTITIONS, topics=[changelog])
    arguments = (services.brokers, BEHAVIORAL_EVENTS.name, str(events), app_id)
    log = services.folder / f"{app_id}.log"
    async with running(sys.executable, str(PEER_SCRIPT), *arguments, environment={}, log=log) as process:
        await asyncio.wait_for(process.wait(), _RUN_SECONDS)
    counted = _last_report(log.read_bytes())
    return float(counted["events"]) / float(counted["seconds"])


def _last_report(output: bytes) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith(b'{"events"')]
    if not lines:
        raise BenchmarkError(f"the Faust agent ended without a report:\n{output[-1_500:].decode(errors='replace')}")
    report: dict[str, Any] = msgspec.json.decode(lines[-1])
    return report


async def statements_of(services: Services, panes: Sequence[Pane]) -> Record:
    """Take down the SQL of our ingestion for the same batches as the worker's."""
    batches = await _batches(services.brokers, panes)
    async with services.database() as url:
        settings = StreamsSettings(database_url=SecretStr(url))
        database = open_database(settings)
        try:
            return await take_down(database, SystemClock(), batches, cached_states=settings.cached_states)
        finally:
            await database.close()


async def bare_rate(services: Services, record: Record) -> float:
    """Run the SQL that was taken down on a fresh database; return records a second."""
    async with services.database() as url:
        database = open_database(StreamsSettings(database_url=SecretStr(url)))
        try:
            return record.records / await run_again(database, record)
        finally:
            await database.close()


async def _batches(brokers: str, panes: Sequence[Pane]) -> list[LedgerBatch]:
    """Read the topic and cut it where the worker cut it."""
    wanted = {pane.partition: pane.to_offset for pane in panes}
    records: dict[int, list[Any]] = {partition: [] for partition in wanted}
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    try:
        places = [TopicPartition(BEHAVIORAL_EVENTS.name, partition) for partition in wanted]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while any(len(records[partition]) < end for partition, end in wanted.items()):
            for place, found in (await consumer.getmany(timeout_ms=5_000)).items():
                records[place.partition] += found
    finally:
        await consumer.stop()
    return [
        LedgerBatch(
            topic=BEHAVIORAL_EVENTS,
            partition=pane.partition,
            from_offset=pane.from_offset,
            records=records[pane.partition][pane.from_offset : pane.to_offset],
        )
        for pane in panes
    ]


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparisons of ingestion that ``plan`` asks for, their rounds interleaved."""
    naive, bare = Samples(), Samples()
    say(f"ingestion: putting {plan.events:,} events on the topic")
    await preload(services, events=plan.events)
    record: Record | None = None
    for number in range(1, plan.rounds + 1):
        ours, panes = await our_rate(services, events=plan.events)
        words = [f"ours {ours:,.0f}"]
        if plan.wants(BARE):
            if record is None:
                record = await statements_of(services, panes)
                say(cost_table(record, records=record.records))
            bare.add(ours=ours, peer=await bare_rate(services, record))
            words.append(f"bare SQL {bare.peer[-1]:,.0f}")
        if plan.wants(NAIVE):
            peer = await naive_rate(services, events=plan.naive_events, round_number=number)
            naive.add(ours=ours, peer=peer)
            words.append(f"naive Faust {peer:,.0f}")
        say(f"ingestion, round {number} of {plan.rounds}: {', '.join(words)} {UNIT}")
    found = []
    if plan.wants(NAIVE):
        found.append(compare(NAIVE, naive, peer_name=NAIVE_NAME, unit=UNIT))
    if plan.wants(BARE):
        found.append(compare(BARE, bare, peer_name=BARE_NAME, unit=UNIT))
    return found


def cost_table(record: Record, *, records: int) -> str:
    """Return where the time of our ingestion goes, in microseconds an event, the dearest part first."""
    seconds = dict(record.seconds)
    whole = seconds.pop("whole")
    seconds["everything else"] = whole - sum(seconds.values())
    lines = [
        f"  {part:16} {1e6 * spent / records:6.2f}"
        for part, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    return "\n".join(
        (
            "our ingestion alone, microseconds an event by part:",
            *lines,
            f"  {'whole':16} {1e6 * whole / records:6.2f}",
        )
    )
