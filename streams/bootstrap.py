"""Builds a streams worker from its settings: the only place of the service that constructs adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.broker.kafka import create_topics
from backends.broker.partitions import PartitionReader
from backends.clock import Clock
from backends.control import Execution
from backends.database.repositories.ingestion import ensure_month_partitions, next_offsets
from backends.database.repositories.models import ModelRepository
from backends.database.unit_of_work import Database
from backends.service_process import Part, ServiceProcess
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from modelkit.registry import dataset_definitions, discover, installed
from modelkit.statistics.dataset import DataSets
from schemas.errors import RetryLaterError
from schemas.golden import golden_messages
from schemas.messages.control import ApproveDataset, Command, QuarantineDataset, RetryDeadLetters, UpdateThresholds
from schemas.topics import BEHAVIORAL_EVENTS, DEAD_LETTERS, PREDICTIONS
from schemas.vocabulary import Service
from streams.batches.batch import BatchOutcome, LedgerBatch
from streams.batches.dead_letter_limits import LimitPolicy
from streams.batches.dead_letters import DeadLetterService
from streams.batches.events import EventIngestion, take_in_events
from streams.batches.foreign_dead_letters import GROUP as DEAD_LETTERS_GROUP
from streams.batches.foreign_dead_letters import ForeignDeadLetters
from streams.batches.golden import BrokenReceiverError, GoldenCheck
from streams.batches.predictions import PredictionArchive, take_in_predictions
from streams.batches.retries import retry_dead_letters
from streams.dataset_agent import DatasetAgent
from streams.reading.ledger import GROUP, LedgerTopic, LedgerWork
from streams.reading.live import LIVE_CHANGELOG, LiveView, create_app, live_table, register_live_agents
from streams.service import ContinuousLearningService

if TYPE_CHECKING:
    import faust

    from streams.settings import StreamsSettings

log = get_logger("streams.bootstrap")
MEBIBYTE = 1024 * 1024
CONNECTIONS = (
    10  # kept open: batches of events and predictions, and what relay, data sets and commands need beside them
)
STOP_SECONDS = 8.0
MONTHS_AHEAD = 3
PARTITIONS_EVERY_SECONDS = 86_400.0
PARTITIONS_RETRY_SECONDS = 30.0
WATCH_EVERY_SECONDS = 0.5
CHANGELOG_RETRY_SECONDS = 0.5
LOOKS_IN_A_WINDOW = 4


@dataclass(slots=True, kw_only=True)
class Worker:
    """A streams worker that is built but not yet started."""

    settings: StreamsSettings
    clock: Clock
    database: Database
    service: ContinuousLearningService
    letters: DeadLetterService
    agent: DatasetAgent
    reader: PartitionReader
    app: faust.App
    live: LiveView

    def checks(self) -> dict[str, bool]:
        """Return what must hold for readiness."""
        return {
            "database": self.agent.is_healthy,
            "assigned": self.reader.assigned is not None,
            "placed": self.reader.placed,
            "caught_up": self.reader.caught_up,
        }

    def facts(self) -> dict[str, Any]:
        """Return position and lag of each partition, and the live view."""
        return {
            "partitions": {
                f"{lag.topic}/{lag.partition}": {"position": lag.position, "end": lag.end, "lag": lag.records}
                for lag in self.reader.lags()
            },
            "datasets": self.live.show(),
        }

    async def follow(self) -> None:
        """Run the Faust app until it ends."""
        # Cancelled itself, Faust swallows it in the first call, and leaves tasks behind in the second.
        await asyncio.shield(self.app.start())
        await asyncio.shield(self.app.wait_until_stopped())
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    async def stop_consuming(self) -> None:
        """Finish the batches in hand and leave the groups; give up waiting after some seconds."""
        leaving = {asyncio.ensure_future(self.reader.stop()), asyncio.ensure_future(self.app.stop())}
        done, _ = await asyncio.wait(
            leaving, timeout=STOP_SECONDS
        )  # Faust swallows a cancellation: it cannot be timed out
        for one in done:
            one.result()

    async def keep_partitions(self) -> None:
        """Create the archive's partitions for the coming months, once a day."""
        while True:
            try:
                today = self.clock.now().date()
                await ensure_month_partitions(self.database, from_month=today.replace(day=1), months=MONTHS_AHEAD + 1)
                await asyncio.sleep(PARTITIONS_EVERY_SECONDS)
            except RetryLaterError as error:
                log.warning("partitions_delayed", error=repr(error))
                await asyncio.sleep(PARTITIONS_RETRY_SECONDS)

    async def clear_limits(self) -> None:
        """Clear the alerts about producers that are within their limits again."""
        pause = self.settings.dead_letter_window_seconds / LOOKS_IN_A_WINDOW
        while True:
            await asyncio.sleep(pause)
            try:
                await self.letters.clear(self.database)
            except RetryLaterError as error:
                log.warning("clearing_delayed", error=repr(error))

    async def watch(self) -> None:
        """Keep the gauges of positions, lag and live view up to date."""
        while True:
            for lag in self.reader.lags():
                labels = {"group": GROUP, "topic": lag.topic, "partition": str(lag.partition)}
                METRICS.consumer_position.labels(**labels).set(lag.position)
                METRICS.consumer_lag.labels(**labels).set(lag.records)
            self.live.show()
            await asyncio.sleep(WATCH_EVERY_SECONDS)


def build_worker(
    settings: StreamsSettings, database: Database, clock: Clock, *, announce: Callable[[], None] = lambda: None
) -> Worker:
    """Build a worker inside the running loop. It calls ``announce`` when the outbox may hold a crossing."""
    letters = DeadLetterService(clock, limit_policy(settings), check=golden_check())
    models = tuple(installed())
    events = EventIngestion(
        database,
        clock,
        letters,
        data_sets=DataSets(dataset_definitions()),
        state_cache_bytes=settings.state_cache_mib * MEBIBYTE,
    )
    predictions = PredictionArchive(database, letters, models=models)
    service = ContinuousLearningService(database, clock, events=events, predictions=predictions, models=models)

    async def process_and_wake(batch: LedgerBatch) -> BatchOutcome:
        outcome = await service.process_behavioral_events(batch)
        agent.wake()  # panes of other workers wake it through their topic; its own need not travel first
        return outcome

    topics = {
        BEHAVIORAL_EVENTS: LedgerTopic(process_and_wake, events.forget),
        PREDICTIONS: LedgerTopic(service.archive_predictions, predictions.forget),
    }
    work = LedgerWork(topics, lambda topic, partitions: next_offsets(database, topic, partitions))
    reader = PartitionReader(
        settings.brokers,
        work.topics,
        work,
        group=GROUP,
        session_seconds=settings.session_timeout_seconds,
        most_records=settings.batch_records,
    )
    agent = DatasetAgent(
        service,
        clock,
        every_seconds=settings.readiness_seconds,
        is_behind=lambda: reader.is_behind,
        announce=announce,
    )
    app = create_app(settings)
    live = LiveView(live_table(app), service.live_dataset, models=models)
    register_live_agents(app, live, wake=agent.wake)
    return Worker(
        settings=settings, clock=clock, database=database, service=service, letters=letters, agent=agent, reader=reader, app=app, live=live,
    )  # fmt: skip


def golden_check() -> GoldenCheck:
    """Return the check that this worker can read the golden messages."""
    return GoldenCheck(
        golden_messages(),
        {BEHAVIORAL_EVENTS: take_in_events, PREDICTIONS: partial(take_in_predictions, models=tuple(installed()))},
    )


def limit_policy(settings: StreamsSettings) -> LimitPolicy:
    """Return the limits of dead letters."""
    return LimitPolicy(
        ratio=settings.dead_letter_ratio,
        consecutive=settings.dead_letter_consecutive,
        least_records=settings.dead_letter_records,
        window_seconds=settings.dead_letter_window_seconds,
    )


async def run(settings: StreamsSettings) -> int:
    """Run a worker until it must stop; return the exit status."""
    process = ServiceProcess(Service.STREAMS, settings)
    try:
        golden_check()()
    except BrokenReceiverError as error:
        log.error("golden_messages_refused", error=str(error))  # noqa: TRY400 - the sentence says it all
        return 1
    (settings.folder / "streams").mkdir(parents=True, exist_ok=True)
    database = process.open_database(connections=CONNECTIONS)
    relay = process.relay(database)
    worker = build_worker(settings, database, process.clock, announce=relay.wake)
    process.health(worker.checks, worker.facts)
    process.add_part(Part(start=lambda: register_models(database)))
    process.add_part(Part(start=lambda: create_changelog(settings)))
    process.add_part(Part(stop=worker.stop_consuming))
    executions: dict[type[Command], Execution] = {
        UpdateThresholds: worker.service.update_thresholds,
        ApproveDataset: worker.service.approve_dataset,
        QuarantineDataset: worker.service.quarantine_dataset,
        RetryDeadLetters: retry_dead_letters,
    }
    process.execute(database, executions, models=tuple(installed()), name=f"{GROUP}-control", relay=relay)
    process.read(DEAD_LETTERS, ForeignDeadLetters(database).handle, name=DEAD_LETTERS_GROUP, group=DEAD_LETTERS_GROUP)
    process.add_work(
        worker.reader.run,
        worker.follow,
        worker.agent.run,
        worker.keep_partitions,
        worker.clear_limits,
        worker.watch,
    )
    return await process.run()


async def register_models(database: Database) -> None:
    """Create the missing rows of each installed model; waits and retries while the database is away."""
    for problem in discover().problems:
        log.error("model_left_out", problem=problem)
    rules = {model_type: definition.threshold for model_type, definition in installed().items()}
    while True:
        try:
            async with database.transaction() as work:
                added = await ModelRepository(work.connection).register(rules)
        except RetryLaterError as error:
            log.warning("models_delayed", error=str(error))
            await asyncio.sleep(PARTITIONS_RETRY_SECONDS)
        else:
            if added:
                log.info("models_registered", models=added)
            return


async def create_changelog(settings: StreamsSettings) -> None:
    """Create the live view's changelog topic if it is missing; waits and retries while the broker is away."""
    while True:
        try:
            await create_topics(
                settings.brokers,
                wide_partitions=settings.wide_partitions,
                replication=settings.topic_replication,
                topics=[LIVE_CHANGELOG],
            )
        except RetryLaterError as error:
            log.warning("changelog_delayed", error=str(error))
            await asyncio.sleep(CHANGELOG_RETRY_SECONDS)
        else:
            return
