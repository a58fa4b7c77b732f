"""Measures the time from the event that crosses a threshold until ``ThresholdReached`` can be read, under a steady flow.

The crossing event is found by counting: the ranges of an epoch name its panes. In the order in which the panes were
closed, and by offset within each, it is the counted event that reaches the threshold. (If partitions commit side by side
and the data set was evaluated between two commits, it may be a neighbour of the true one, some milliseconds away.) The
time runs from the producer's acknowledgement until a consumer has the message, on one clock in one process.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import datetime as dt
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.flow import Flow, flowing
from benchmarks.ratios import Comparison, bounded, percentile
from benchmarks.services import BenchmarkError, Services, connected, eventually
from benchmarks.worker import LIVE, ledger_sum
from fincoach_events import OutgoingEvent
from fincoach_events.events import AnyBehavioralEvent, RecommendationInteraction, TransactionCreated, decode_event
from schemas import codec
from schemas.messages.training import ThresholdReached
from schemas.topics import BEHAVIORAL_EVENTS, THRESHOLD_REACHED
from schemas.vocabulary import FEEDBACK_INTERACTIONS, ModelType, Service

if TYPE_CHECKING:
    import asyncpg

    from benchmarks.plan import Plan, Say

CROSSING = "crossing_to_threshold_p99_ms"
BOUND_MS = 1_000.0
UNIT = "ms"
RATE = 2_000.0
# For the two models that count without memory; at this rate there are about six crossings a second.
THRESHOLDS = {"spending": 250, "recommendation": 75}
WARM_UP_SECONDS = 5.0


class Pane(NamedTuple):
    """A batch: its offsets, and the number of events that it counts for one model."""

    closed_at: dt.datetime
    partition: int
    from_offset: int
    to_offset: int
    counted: int


class Reached(NamedTuple):
    """A message and the time when it was read."""

    at: float
    message: ThresholdReached


@dataclass(frozen=True, slots=True)
class Counted:
    """The events that count for one model, by partition: their offsets and the times of acknowledgement."""

    offsets: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    times: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, partition: int, offset: int, *, at: float) -> None:
        """Add the next event of a partition."""
        self.offsets[partition].append(offset)
        self.times[partition].append(at)


def crossed_at(panes: Iterable[Pane], counted: Counted, *, threshold: int) -> float:
    """Return when the broker acknowledged the event that made an epoch of ``panes`` reach ``threshold``. Pure.

    Raises:
        BenchmarkError: the panes count other events than were sent, or never reach the threshold.
    """
    before = 0
    for pane in sorted(panes):
        offsets = counted.offsets[pane.partition]
        first, end = (bisect.bisect_left(offsets, offset) for offset in (pane.from_offset, pane.to_offset))
        if end - first != pane.counted:
            raise BenchmarkError(f"a pane counts {pane.counted} events where {end - first} were sent: {pane}")
        if before + pane.counted >= threshold:
            return counted.times[pane.partition][first + threshold - before - 1]
        before += pane.counted
    raise BenchmarkError(f"an epoch was closed with {before} events, below its threshold of {threshold}")


def delays_ms(
    reached: Iterable[Reached],
    panes: Mapping[ModelType, Sequence[Pane]],
    counted: Mapping[ModelType, Counted],
    *,
    since: float,
) -> list[float]:
    """Return the milliseconds from crossing event to message, for crossings after ``since``. Pure."""
    delays = []
    for at, message in reached:
        crossed = crossed_at(
            _inside(panes[message.model_type], message), counted[message.model_type], threshold=message.threshold
        )
        if crossed >= since:
            delays.append(1_000 * (at - crossed))
    return delays


def counted_for(event: AnyBehavioralEvent) -> ModelType | None:
    """Return the model of :data:`THRESHOLDS` that counts the event."""
    if isinstance(event, TransactionCreated):
        return "spending"
    if isinstance(event, RecommendationInteraction) and event.interaction_type in FEEDBACK_INTERACTIONS:
        return "recommendation"
    return None


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparison with its bound."""
    say(f"crossings: {plan.crossing_seconds:.0f} s at {RATE:,.0f} events/s")
    counted: dict[ModelType, Counted] = {model_type: Counted() for model_type in THRESHOLDS}

    def note(event: OutgoingEvent, partition: int, offset: int) -> None:
        model_type = counted_for(decode_event(event.value))
        if model_type is not None:
            counted[model_type].add(partition, offset, at=time.perf_counter())

    async with services.beside() as own, own.database() as url, connected(url) as connection:
        await _lower_thresholds(connection)
        async with (
            own.process(Service.STREAMS, database_url=url, ready_path=LIVE),
            flowing(own, on_acknowledged=note) as flow,
            _reading(own) as reached,
        ):
            begun = await _run_flow(flow, connection, reached, seconds=plan.crossing_seconds)
        panes = {model_type: await _panes(connection, model_type) for model_type in THRESHOLDS}
    delays = delays_ms(reached, panes, counted, since=begun)
    if len(delays) < plan.least_crossings:
        raise BenchmarkError(f"{len(delays)} crossings; {plan.least_crossings} are needed")
    p99 = percentile(delays, 0.99)
    say(
        f"crossings: {len(delays)}, half of them read within {percentile(delays, 0.5):,.0f} ms,"
        f" p99 {p99:,.0f} ms, the longest {max(delays):,.0f} ms"
    )
    return [bounded(CROSSING, p99, bound=BOUND_MS, unit=UNIT)]


async def _lower_thresholds(connection: asyncpg.Connection) -> None:
    """Set thresholds that are reached often and depend on the count alone; other models never reach theirs."""
    await connection.execute("UPDATE thresholds SET updated_by = 'test', threshold = 1000000000, adaptive = false")
    for model_type, threshold in THRESHOLDS.items():
        await connection.execute(
            "UPDATE thresholds SET updated_by = 'test', threshold = $2, quality_gate = 0, cool_down_seconds = 0, user_share = 0.5"
            " WHERE model_type = $1",
            model_type,
            threshold,
        )


async def _run_flow(flow: Flow, connection: asyncpg.Connection, reached: Sequence[Reached], *, seconds: float) -> float:
    """Send events and wait for all messages; return the time from which crossings count, after a warm-up."""
    async with flow.at_rate(RATE):
        await eventually(lambda: _some(reached), what="a first crossing")
        await asyncio.sleep(WARM_UP_SECONDS)
        begun = time.perf_counter()
        await asyncio.sleep(seconds)
    await flow.flush()
    await eventually(lambda: _read_all(flow, connection, reached), what="the messages of all epochs")
    return begun


async def _some(reached: Sequence[Reached]) -> bool:
    return bool(reached)


async def _read_all(flow: Flow, connection: asyncpg.Connection, reached: Sequence[Reached]) -> bool:
    """Whether all events are counted, all panes evaluated, and the messages of all epochs read."""
    if await ledger_sum(connection) < flow.sent:
        return False
    epochs = await connection.fetchval("SELECT count(*) FROM epochs")
    behind = await connection.fetchval(
        "SELECT count(*) FROM ledger JOIN dataset_cursors USING (topic, generation, partition)"
        " WHERE model_type = ANY($1) AND dataset_cursors.next_offset < ledger.next_offset",
        list(THRESHOLDS),
    )
    return not behind and bool(epochs <= len(reached))


async def _panes(connection: asyncpg.Connection, model_type: ModelType) -> list[Pane]:
    rows = await connection.fetch(
        "SELECT closed_at, partition, from_offset, to_offset, counts FROM panes WHERE topic = $1",
        BEHAVIORAL_EVENTS.name,
    )
    return [
        Pane(
            row["closed_at"],
            row["partition"],
            row["from_offset"],
            row["to_offset"],
            msgspec.json.decode(row["counts"]).get(model_type, {}).get("counted", 0),
        )
        for row in rows
    ]


def _inside(panes: Iterable[Pane], message: ThresholdReached) -> list[Pane]:
    ranges = {found.partition: found for found in message.ranges}
    return [
        pane
        for pane in panes
        if pane.partition in ranges
        and ranges[pane.partition].from_offset <= pane.from_offset < ranges[pane.partition].to_offset
    ]


@contextlib.asynccontextmanager
async def _reading(services: Services) -> AsyncIterator[list[Reached]]:
    """Give a list to which each message is added with the time when a consumer got it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=services.brokers)
    await consumer.start()
    partition = TopicPartition(THRESHOLD_REACHED.name, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    reached: list[Reached] = []
    reading = asyncio.create_task(_read(consumer, reached))
    try:
        yield reached
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, reached: list[Reached]) -> None:
    async for record in consumer:
        reached.append(  # noqa: PERF401 - each as it comes
            Reached(time.perf_counter(), codec.decode(THRESHOLD_REACHED, record.value))
        )
