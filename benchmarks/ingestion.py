"""Measures how fast events are archived, folded and counted: our worker against bare SQL, Quix Streams and a plain Faust agent."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from backends.broker.kafka import create_topics
from backends.clock import SystemClock
from backends.service_process import open_database
from benchmarks import quix, sampling
from benchmarks.environments import PEERS, PeerMissingError
from benchmarks.processors import processor_table
from benchmarks.ratios import Comparison, Samples, compare, skipped
from benchmarks.services import WIDE_PARTITIONS, Services, reported_rate, settled
from benchmarks.statements import Recording, record_statements, replay_statements
from benchmarks.topic import Loaded, preload
from benchmarks.worker import Drained, Pane, drain
from benchmarks.workload import behavioral_events, with_repetitions
from schemas.topics import BEHAVIORAL_EVENTS, Topic
from schemas.vocabulary import Service
from streams.batches.batch import LedgerBatch
from streams.bootstrap import CONNECTIONS
from streams.settings import StreamsSettings

if TYPE_CHECKING:
    from benchmarks.plan import Plan, Say

NAIVE, BARE, QUIX = "ingest_vs_naive_faust", "ingest_vs_bare_sql", "ingest_vs_quix_postgres"
DUPLICATES = "ingest_with_duplicates_vs_without"
PEER_NAMES = {
    NAIVE: "Faust agent, table[key] += 1, memory store, nothing archived",
    BARE: "the same SQL with ready-made rows",
    QUIX: "Quix Streams, count per user in RocksDB, PostgreSQL sink, at least once",
    DUPLICATES: "the same events without repetitions",
}
SHORT_NAMES = {NAIVE: "naive Faust", BARE: "bare SQL", QUIX: "Quix Streams", DUPLICATES: "with duplicates"}
ALL = tuple(PEER_NAMES)
UNIT = "events/s"
PEER_SCRIPT = PEERS / "naive_faust.py"
REPEATED_SHARE = 0.01
STACKS = Path(__file__).parent / "results" / "worker-stacks.txt"


async def naive_rate(services: Services, *, events: int, round_number: int) -> float:
    """Let a Faust agent count the first ``events`` events of the topic; return events per second from first to last."""
    app_id = f"naive-{round_number}"
    changelog = Topic(
        name=f"{app_id}-counts-changelog",
        key="key",
        messages=(),
        producers=(),
        consumers=(),
        retention_seconds=None,
        wide=True,
        cleanup="compact",
        tag_field="none",
    )
    await create_topics(services.brokers, wide_partitions=WIDE_PARTITIONS, topics=[changelog])
    arguments = (services.brokers, BEHAVIORAL_EVENTS.name, str(events), app_id)
    log = services.folder / f"{app_id}.log"
    await settled()
    return await reported_rate(sys.executable, str(PEER_SCRIPT), *arguments, log=log)


async def recorded(services: Services, panes: Sequence[Pane]) -> Recording:
    """Record the SQL of our ingestion for the worker's batches."""
    batches = await _batches(services.brokers, panes)
    async with services.database() as url:
        settings = StreamsSettings(database_url=SecretStr(url))
        database = open_database(Service.STREAMS, settings, name="streams", connections=CONNECTIONS)
        try:
            state_cache_bytes = settings.state_cache_mib * 2**20
            return await record_statements(database, SystemClock(), batches, state_cache_bytes=state_cache_bytes)
        finally:
            await database.close()


async def bare_rate(services: Services, recording: Recording) -> float:
    """Run the recorded SQL on a fresh database; return records per second."""
    async with services.database() as url:
        database = open_database(
            Service.STREAMS, StreamsSettings(database_url=SecretStr(url)), name="streams", connections=CONNECTIONS
        )
        try:
            return recording.records / await replay_statements(database, recording)
        finally:
            await database.close()


async def _batches(brokers: str, panes: Sequence[Pane]) -> list[LedgerBatch]:
    """Read the topic and divide it into the worker's batches."""
    wanted = {pane.partition: pane.to_offset for pane in panes}
    records: dict[int, list[Any]] = {partition: [] for partition in wanted}
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    try:
        partitions = [TopicPartition(BEHAVIORAL_EVENTS.name, partition) for partition in wanted]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any(len(records[partition]) < end for partition, end in wanted.items()):
            for source, found in (await consumer.getmany(timeout_ms=5_000)).items():
                records[source.partition] += found
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


@dataclass(kw_only=True)
class Rounds:
    """The comparisons of ingestion by round: one run of ours, then one of each requested peer."""

    services: Services
    plan: Plan
    say: Say
    loaded: Loaded
    quix: Path | None
    beside: tuple[Services, Loaded] | None
    samples: dict[str, Samples] = field(default_factory=lambda: defaultdict(Samples))
    recording: Recording | None = None

    async def run(self, number: int) -> None:
        """Measure one round."""
        ours, repeated = await self._ours(number)
        shown = [f"ours {ours.rate:,.0f}"]
        if repeated is not None:  # ours is the run with duplicates, its peer the run without
            self.samples[DUPLICATES].add(ours=repeated.rate, peer=ours.rate)
            shown.append(f"{SHORT_NAMES[DUPLICATES]} {repeated.rate:,.0f}")
        for name, measured in self._peers(ours, number).items():
            rate = await measured()
            shown.append(f"{SHORT_NAMES[name]} {rate:,.0f}")
            self.samples[name].add(ours=ours.rate, peer=rate)
        self.say(f"ingestion, round {number} of {self.plan.rounds}: {', '.join(shown)} {UNIT}")
        if number == self.plan.rounds:
            self.say(
                processor_table(
                    ours.seconds,
                    events=ours.records,
                    rate=ours.rate,
                    written_bytes=ours.written_bytes,
                    cores=os.cpu_count() or 1,
                )
            )

    async def _ours(self, number: int) -> tuple[Drained, Drained | None]:
        """Drain the topic and, if requested, the one with repetitions.

        The order of the two matters more than the repetitions, so it alternates.
        """
        plain = functools.partial(drain, self.services, self.loaded)
        if self.beside is None:
            return await plain(), None
        with_repeated = functools.partial(drain, *self.beside)
        if number % 2:
            return await plain(), await with_repeated()
        repeated = await with_repeated()
        return await plain(), repeated

    def _peers(self, ours: Drained, number: int) -> dict[str, Callable[[], Awaitable[float]]]:
        peers = {
            BARE: lambda: self._bare(ours),
            QUIX: lambda: self._quix(number),
            NAIVE: lambda: naive_rate(self.services, events=self.plan.naive_events, round_number=number),
        }
        possible = {QUIX: self.quix is not None}
        return {name: peer for name, peer in peers.items() if self.plan.wants(name) and possible.get(name, True)}

    async def _bare(self, ours: Drained) -> float:
        if self.recording is None:
            self.recording = await recorded(self.services, ours.panes)
            self.say(cost_table(self.recording, records=self.recording.records))
        return await bare_rate(self.services, self.recording)

    async def _quix(self, number: int) -> float:
        assert self.quix is not None
        return await quix.quix_rate(self.services, self.quix, self.loaded, name=f"quix-{number}")


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparisons of ingestion in ``plan``, with interleaved rounds."""
    installed, missing = await _quix_environment(plan, say)
    say(f"ingestion: putting {plan.events:,} events on the topic")
    events = functools.partial(behavioral_events, plan.events, ends_at=SystemClock().now())
    loaded = await preload(services, events())
    async with contextlib.AsyncExitStack() as stack:
        beside = None
        if plan.wants(DUPLICATES):
            other = await stack.enter_async_context(services.beside())
            beside = other, await preload(other, with_repetitions(events(), share=REPEATED_SHARE))
        rounds = Rounds(services=services, plan=plan, say=say, loaded=loaded, quix=installed, beside=beside)
        for number in range(1, plan.rounds + 1):
            await rounds.run(number)
        if plan.profile:
            await sampling.profile(services, loaded, stacks=STACKS, say=say)
    found = [
        compare(name, rounds.samples[name], peer_name=peer_name, unit=UNIT)
        for name, peer_name in PEER_NAMES.items()
        if name in rounds.samples
    ]
    return found + missing


async def _quix_environment(plan: Plan, say: Say) -> tuple[Path | None, list[Comparison]]:
    if not plan.wants(QUIX):
        return None, []
    try:
        return await quix.environment(say), []
    except PeerMissingError as error:
        return None, [skipped(QUIX, str(error), peer_name=PEER_NAMES[QUIX], unit=UNIT)]


def cost_table(recording: Recording, *, records: int) -> str:
    """Return where the time of our ingestion goes, in microseconds per event, the most expensive part first."""
    seconds = dict(recording.seconds)
    whole = seconds.pop("whole")
    seconds["everything else"] = whole - sum(seconds.values())
    lines = [
        f"  {part:16} {1e6 * spent / records:6.2f}"
        for part, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    return "\n".join(
        (
            "our ingestion alone, microseconds per event by part:",
            *lines,
            f"  {'whole':16} {1e6 * whole / records:6.2f}",
        )
    )
