"""The demo: the whole loop on real events on this machine, checked at the end by recounted figures.

Kafka, Postgres, all processes, CDNOW's customers and purchases, and the models are real. The customers' answers to
recommendations are simulated, and labelled so (:mod:`stack.simulation`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from admin.gateway import CommandGateway
from admin.installation import Installation
from backends.broker.positions import end_offsets
from backends.clock import SystemClock
from backends.database.engine import create_engine
from backends.database.repositories.queries import QueryRepository
from backends.database.repositories.recount import ModelRecount, OpenWork, RecountRepository
from backends.database.unit_of_work import Database
from fincoach_events import EventProducer, ProducerSettings
from fincoach_events.events import AnyBehavioralEvent
from schemas.errors import FinCoachError, RetryLaterError
from schemas.messages.control import Command, DeployModel, RollBackModel, UpdateThresholds
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import ModelType, Service
from stack.bad_input import bad_records
from stack.replay.cdnow import CdnowSource
from stack.replay.journal import Journal
from stack.replay.player import Player, PlaySettings
from stack.replay.source import RawRecord, ReplayItem, shift_to_now
from stack.report import (
    FEWEST_TRAININGS,
    DemoReport,
    balance,
    dead_lettered,
    event_figures,
    model_figures,
    prediction_figures,
    retrained,
    served_promises,
    served_seconds,
)
from stack.simulation.host import SimulatedHost
from stack.simulation.load import PredictionLoad
from stack.simulation.replica_client import ReplicaClient
from stack.simulation.response_model import SOURCE, VERSION
from stack.system import System

ISSUER = "demo"
LARGEST_BAD_RECORD_BYTES = 3 * 1024 * 1024
# Two trainings at a time: the demo waits for them, and they take most of its time.
DEMO_ENVIRONMENT = {"FINCOACH_TRAINING_PARALLEL_RUNS": "2"}


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """The size and speed of the demo.

    Attributes:
        customers: how many of CDNOW's customers are played; None plays all.
        events_per_second: speed of the replay.
        acts: shares of the events after which the replay pauses until the crossed data sets are trained, so that every model
            trains more than once. The first is long: customers with ten purchases, which segmentation counts, come late.
        visits_per_second: recommendations that the simulated host requests during an act.
        answers_per_act: an act ends after this many answers; then the simulated host pauses until the act is trained.
        predictions_per_second: the steady load on the other models.
        thresholds: lower thresholds, set by command.
        drain_seconds: longest wait for counting and training after an act.
    """

    customers: int | None = None
    events_per_second: float = 4_000.0
    acts: tuple[float, ...] = (0.55, 0.8, 1.0)
    visits_per_second: float = 60.0
    answers_per_act: int = 1_500
    predictions_per_second: float = 40.0
    duplicate_ratio: float = 0.01
    thresholds: dict[ModelType, int] = field(default_factory=dict)
    drain_seconds: float = 900.0


SMOKE = DemoPlan(
    customers=3_000,
    events_per_second=4_000.0,
    acts=(0.6, 1.0),
    visits_per_second=80.0,
    answers_per_act=500,
    thresholds={"recommendation": 100, "segmentation": 25},
    drain_seconds=180.0,
)


class DemoFailedError(FinCoachError):
    """The demo could not be completed."""


@dataclass
class Progress:
    """The progress of the demo, for display."""

    phase: str = "starting"
    sent: int = 0
    acknowledged: int = 0
    size: int = 0
    shown: int = 0
    answered: int = 0
    predictions: int = 0
    failed: int = 0
    models: list[ModelRecount] = field(default_factory=list)
    work: OpenWork = field(default_factory=OpenWork)


class Demo:
    """One run of the demo on a system. ``say`` receives a sentence at each step."""

    def __init__(self, system: System, plan: DemoPlan, *, folder: Path, say: Callable[[str], None]) -> None:
        self.progress = Progress()
        self._system = system
        self._plan = plan
        self._say = say
        self._clock = SystemClock()
        self._began = time.monotonic()
        self._journal = Journal(folder / "demo-journal.jsonl")
        self._notes: list[str] = [
            f"answers to recommendations come from {SOURCE} (response model {VERSION}), not from people"
        ]

    async def run(self) -> DemoReport:
        """Play everything and return the report.

        Raises:
            DemoFailedError: it could not be completed; the message says where it stopped.
        """
        async with AsyncExitStack() as stack:
            installation = await self._system.start(self._enter)
            database = Database(
                create_engine(installation.database_url, application_name="fincoach-demo", pool_size=3), Service.ADMIN
            )
            stack.push_async_callback(database.close)
            gateway = CommandGateway(installation.brokers, issuer=ISSUER, clock=self._clock)
            await gateway.start()
            stack.push_async_callback(gateway.stop)
            client = ReplicaClient([replica.url for replica in installation.replicas])
            stack.push_async_callback(client.close)
            await self._lower_thresholds(gateway)
            async with self._background(installation, database, client) as host:
                await self._play(installation, database, host)
                await self._roll_back_and_forward(gateway, database)
            self._enter("recounting everything")
            await self._drained(installation, database, trainings=FEWEST_TRAININGS)
            return await self._report(database, client)

    @asynccontextmanager
    async def _background(
        self, installation: Installation, database: Database, client: ReplicaClient
    ) -> AsyncIterator[SimulatedHost]:
        """Run the simulated host, the load and the progress watch during the block."""
        producer = EventProducer(
            installation.brokers, consent_default=True, source=SOURCE, on_acknowledged=self._journal.note
        )
        async with producer:
            host = SimulatedHost(client, producer, requests_per_second=self._plan.visits_per_second)
            load = PredictionLoad(client, host.customers, requests_per_second=self._plan.predictions_per_second)
            tasks = [asyncio.create_task(run) for run in (host.run(), load.run(), self._watch(database, host, client))]
            try:
                yield host
            finally:
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                await producer.flush()
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

    async def _lower_thresholds(self, gateway: CommandGateway) -> None:
        for model, threshold in self._plan.thresholds.items():
            await gateway.execute(gateway.command(UpdateThresholds, model, threshold=threshold), timeout_seconds=30)
            note = f"threshold of {model} lowered to {threshold} by UpdateThresholds, because this run plays less data"
            self._notes.append(note)
            self._say(note)
        await gateway.execute(gateway.command(UpdateThresholds, "goal", cool_down_seconds=0), timeout_seconds=30)
        self._notes.append("the cool-down of goal is 0 by UpdateThresholds, because this run plays months in minutes")

    async def _play(self, installation: Installation, database: Database, host: SimulatedHost) -> None:
        source = shift_to_now(CdnowSource(customers=self._plan.customers), self._clock.now())
        self.progress.size = source.size or 0
        items = source.events()
        bounds = [0, *(round(share * self.progress.size) for share in self._plan.acts)]
        for number, (begin, end) in enumerate(itertools.pairwise(bounds), start=1):
            name = f"act {number} of {len(self._plan.acts)}"
            self._enter(f"{name}: replaying CDNOW")
            await self._play_act(installation, host, _Act(source.name, items, length=end - begin, observe=host.observe))
            if number == 1:
                await self._send_bad_input(installation)
            self._enter(f"{name}: counting, and training the crossed data sets")
            await self._drained(installation, database, trainings=number)

    async def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._plan.drain_seconds
        while not holds():
            if time.monotonic() > deadline:
                raise DemoFailedError(
                    f"waited {self._plan.drain_seconds:g} s for {what}; `fincoach-learning status` names the broken link"
                )
            await asyncio.sleep(0.1)

    async def _play_act(self, installation: Installation, host: SimulatedHost, act: _Act) -> None:
        answered = host.answered + self._plan.answers_per_act
        host.resume()
        await self._replay(installation, act)
        await self._until(f"{self._plan.answers_per_act} answers", lambda: host.answered >= answered)
        host.pause()

    async def _replay(self, installation: Installation, act: _Act) -> None:
        sent, acknowledged = self.progress.sent, self.progress.acknowledged

        def show(now_sent: int, now_acknowledged: int, _: int | None) -> None:
            self.progress.sent, self.progress.acknowledged = sent + now_sent, acknowledged + now_acknowledged

        settings = PlaySettings(
            events_per_second=self._plan.events_per_second, duplicate_ratio=self._plan.duplicate_ratio
        )
        await Player(installation.brokers, self._journal, settings=settings, on_progress=show).play(act)

    async def _send_bad_input(self, installation: Installation) -> None:
        settings = ProducerSettings(max_event_bytes=LARGEST_BAD_RECORD_BYTES)
        producer = EventProducer(
            installation.brokers, consent_default=True, settings=settings, on_acknowledged=self._journal.note_invalid
        )
        async with producer:
            for value, key in bad_records(self._clock.now()):
                await producer.send_bytes(value, key=key)

    async def _drained(self, installation: Installation, database: Database, *, trainings: int) -> None:
        """Wait until all events are counted, all crossed data sets trained and decided, and each model has ``trainings``."""
        topics = [BEHAVIORAL_EVENTS]
        deadline = time.monotonic() + self._plan.drain_seconds
        while time.monotonic() < deadline:
            with suppress(RetryLaterError):
                ends = await end_offsets(installation.brokers, topics, wide_partitions=installation.wide_partitions)
                if await self._is_drained(database, sum(ends.values()), trainings=trainings):
                    return
            await asyncio.sleep(0.5)
        behind = [f"{row.model_type} has {row.trainings}" for row in self.progress.models if row.trainings < trainings]
        waiting = [f"{number} {name}" for name, number in self.progress.work.waiting().items()]
        raise DemoFailedError(
            f"work is left after {self._plan.drain_seconds:g} s (waiting: {', '.join(waiting) or 'nothing'}; of {trainings} trainings: "
            f"{', '.join(behind) or 'none missing'}); `fincoach-learning status` and `trainings` with the demo's --folder say more"
        )

    async def _is_drained(self, database: Database, delivered: int, *, trainings: int) -> bool:
        async with database.reading() as connection:
            recount = RecountRepository(connection)
            work, models = await recount.open_work(), await recount.models()
            counted = (await recount.events(BEHAVIORAL_EVENTS.name)).pane_records
        enough = all(row.trainings >= trainings for row in models)
        return counted >= delivered and not work.waiting() and enough

    async def _roll_back_and_forward(self, gateway: CommandGateway, database: Database) -> None:
        self._enter("rolling one model back and forward by command")
        async with database.reading() as connection:
            deployments = await QueryRepository(connection).deployments()
        candidates = [row for row in deployments if row.previous_version is not None]
        if not candidates:
            raise DemoFailedError(
                "no model was promoted, so nothing can be rolled back: see `fincoach-learning trainings`"
            )
        row = max(candidates, key=lambda candidate: candidate.sequence)
        for kind, fields in ((RollBackModel, {}), (DeployModel, {"version": row.version})):
            await self._swap(gateway, database, gateway.command(kind, row.model_type, **fields))

    async def _swap(self, gateway: CommandGateway, database: Database, command: Command) -> None:
        began = time.monotonic()
        result = await gateway.execute(command, timeout_seconds=30)
        await self._wait_for_replicas(database)
        self._say(f"{result.detail}; on all replicas {time.monotonic() - began:.2f} s after the command")

    async def _wait_for_replicas(self, database: Database) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if await self._replicas_agree(database):
                return
            await asyncio.sleep(0.05)
        raise DemoFailedError(
            "the replicas do not serve the desired versions after 60 s: `fincoach-learning status` names the broken link"
        )

    async def _replicas_agree(self, database: Database) -> bool:
        async with database.reading() as connection:
            queries = QueryRepository(connection)
            wanted = {row.model_type: row.sequence for row in await queries.deployments()}
            replicas = await queries.replicas()
        served = [row.models for row in replicas]
        expected = len(self._system.installation.replicas)
        return len(served) == expected and all(
            model in models and models[model].sequence == sequence
            for models in served
            for model, sequence in wanted.items()
        )

    async def _report(self, database: Database, client: ReplicaClient) -> DemoReport:
        journal = self._journal.recount()
        async with database.reading() as connection:
            recount, queries = RecountRepository(connection), QueryRepository(connection)
            events = await recount.events(BEHAVIORAL_EVENTS.name)
            models = model_figures(await recount.models(), await recount.evidence())
            served, chain = await recount.crossing_to_served(), await recount.chain()
            replicas = await queries.replicas()
            swaps = [row for row in await queries.acknowledgements() if row.sequence > 1]
        moments = [time.monotonic() - (self._clock.now() - row.served_since).total_seconds() for row in swaps]
        balanced = balance(journal.lines, journal.distinct_events, events)
        serving = {row.replica_id: {name: model.version for name, model in row.models.items()} for row in replicas}
        predictions = prediction_figures(client.tally, moments)
        if client.tally.retried:
            self._notes.append(f"{client.tally.retried} attempts went to another replica: {client.tally.errors}")
        promises = (
            balanced,
            dead_lettered(journal.invalid, events.dead_lettered),
            *(retrained(name, figures) for name, figures in models.items()),
            *served_promises(predictions, serving, swaps=len(swaps), is_traced=chain is not None),
        )
        return DemoReport(
            events=event_figures(journal.distinct_events, events),
            balanced=balanced.holds,
            models=models,
            replicas=serving,
            predictions=predictions,
            swaps=len(swaps),
            crossing_to_served_seconds=served_seconds(served),
            seconds=round(time.monotonic() - self._began, 1),
            chain=chain,
            notes=tuple(self._notes),
            promises=promises,
        )

    async def _watch(self, database: Database, host: SimulatedHost, client: ReplicaClient) -> None:
        while True:
            self.progress.shown, self.progress.answered = host.shown, host.answered
            self.progress.predictions, self.progress.failed = client.tally.total, client.tally.failed
            with suppress(RetryLaterError):
                async with database.reading() as connection:
                    recount = RecountRepository(connection)
                    self.progress.models, self.progress.work = await recount.models(), await recount.open_work()
            await asyncio.sleep(1.0)

    def _enter(self, phase: str) -> None:
        self.progress.phase = phase
        self._say(phase)


class _Act:
    """The next part of a source whose events are read in order; passes each event to ``observe``."""

    def __init__(
        self,
        name: str,
        items: Iterator[ReplayItem],
        *,
        length: int,
        observe: Callable[[AnyBehavioralEvent], None],
    ) -> None:
        self.name = name
        self.size = length
        self.ends_at: dt.datetime | None = None
        self._items = items
        self._observe = observe

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield the act's events."""
        del limit
        for item in itertools.islice(self._items, self.size):
            if not isinstance(item, RawRecord):
                self._observe(item)
            yield item
