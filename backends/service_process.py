"""One process of a service: the parts that every service has, started and stopped in one order.

A bootstrap makes a :class:`ServiceProcess` from its settings, adds its own parts, and runs it. Nothing connects before it
runs. Then:

1. Parts start in the order in which they were added.
2. Steps of :meth:`ServiceProcess.do_first` wait until the producer is connected and are done one by one. Without any, work
   begins at once and the producer connects when the broker answers.
3. Everything else runs side by side: the outbox relay, readers of topics, and the service's own work.

A signal, or the first task that ends, stops everything in reverse: the producer behind the service's own parts, the database
last. Database connections open when they are needed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends.broker.connecting import connected
from backends.broker.kafka import BrokerConsumer, BrokerProducer
from backends.broker.processor import Processor
from backends.clock import SystemClock
from backends.control import LONGEST_COMMAND_LIFE, CommandHandler, Execution
from backends.database.engine import create_engine
from backends.database.outbox import OutboxRelay
from backends.database.unit_of_work import Database
from backends.dead_letters import DeadLetterTopic
from backends.process import Startable, run_process
from backends.telemetry.health import HealthServer, Readiness
from backends.telemetry.logs import configure_logs
from schemas.topics import CONTROL, Topic

if TYPE_CHECKING:
    import datetime as dt

    from backends.broker.interface import DeadLetterSink, Handler
    from backends.settings import ProcessSettings
    from schemas.messages.control import Command
    from schemas.vocabulary import ModelType, Service

Work = Callable[[], Coroutine[Any, Any, None]]


async def nothing() -> None:
    """Do nothing: the beginning or end of a part that needs none."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a process from two functions."""

    start: Callable[[], Awaitable[None]] = nothing
    stop: Callable[[], Awaitable[None]] = nothing


class Reader:
    """Reads one topic while the process lives; a broker that is away delays only this reader."""

    def __init__(
        self,
        name: str,
        new_consumer: Callable[[], BrokerConsumer],
        *,
        handler: Handler,
        dead_letters: DeadLetterSink,
        since: Callable[[], dt.datetime] | None,
    ) -> None:
        self._name = name
        self._new_consumer = new_consumer
        self._handler = handler
        self._dead_letters = dead_letters
        self._since = since
        self._processor: Processor | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the broker has answered."""
        return self._processor is not None

    @property
    def has_caught_up(self) -> bool:
        """Whether everything that was there at the start has been handled."""
        return self._processor is not None and self._processor.caught_up.is_set()

    async def run(self) -> None:
        """Read until cancelled."""
        consumer = await connected(self._new_consumer, since=self._since)
        try:
            self._processor = Processor(consumer, self._handler, self._dead_letters, name=self._name)
            await self._processor.run()
        finally:
            await consumer.stop()


class ServiceProcess:
    """One process of ``service``; see the module for the order of its life."""

    def __init__(
        self, service: Service, settings: ProcessSettings, *, name: str | None = None, linger_ms: int = 5
    ) -> None:
        self.service = service
        self.settings = settings
        self.name = name or settings.instance or f"{service}-{os.getpid()}"
        self.clock = SystemClock()
        self.producer = BrokerProducer(settings.brokers, client_id=self.name, linger_ms=linger_ms)
        self.dead_letters = DeadLetterTopic(self.producer)
        self._parts: list[Startable] = [Part(stop=self.producer.stop)]
        self._first: list[Work] = []
        self._work: list[Work] = []
        self._begun = asyncio.Event()
        configure_logs(process=self.name, level=settings.log_level)

    def open_database(self, *, connections: int = 5) -> Database:
        """Return the service's database; connections open when needed and close at the end."""
        database = open_database(self.service, self.settings, name=self.name, connections=connections)
        self._parts.insert(0, Part(stop=database.close))
        return database

    def relay(self, database: Database) -> OutboxRelay:
        """Return the relay that publishes the service's outbox while the process lives."""
        relay = OutboxRelay(database, self.producer)
        self._work.append(relay.run)
        return relay

    def health(self, readiness: Readiness, facts: Callable[[], dict[str, Any]] | None = None) -> None:
        """Serve liveness, readiness and metrics over HTTP."""
        server = HealthServer(host=self.settings.host, port=self.settings.port, readiness=readiness, facts=facts)
        self._parts.append(server)

    def add_part(self, part: Startable) -> None:
        """Start ``part`` after those before it, and stop it before them."""
        self._parts.append(part)

    def do_first(self, step: Work) -> None:
        """Do ``step`` once, when the producer is connected, before any work begins."""
        self._first.append(step)

    def add_work(self, *work: Work) -> None:
        """Run ``work`` until the end; the process stops when any work ends."""
        self._work += work

    def consumer(self, topic: Topic, *, group: str | None = None) -> BrokerConsumer:
        """Return a consumer of one topic, in a group or alone, not yet started."""
        return BrokerConsumer(self.settings.brokers, [topic], client_id=self.name, group=group)

    def read(
        self,
        topic: Topic,
        handler: Handler,
        *,
        name: str,
        group: str | None = None,
        since: Callable[[], dt.datetime] | None = None,
        dead_letters: DeadLetterSink | None = None,
    ) -> Reader:
        """Hand each record of ``topic`` to ``handler``: as a member of ``group``, or alone from ``since`` or the beginning."""
        sink = dead_letters or self.dead_letters
        reader = Reader(
            name, lambda: self.consumer(topic, group=group), handler=handler, dead_letters=sink, since=since
        )
        self._work.append(reader.run)
        return reader

    def execute(
        self,
        database: Database,
        executions: Mapping[type[Command], Execution],
        *,
        models: Collection[ModelType],
        name: str,
        relay: OutboxRelay,
    ) -> Reader:
        """Carry out the service's own commands from the control topic; their answers go out at once."""
        commands = CommandHandler(database, self.clock, dict(executions), models=models)

        async def handle(record: Any) -> None:  # noqa: ANN401 - a Record
            await commands.handle(record)
            relay.wake()

        def since() -> dt.datetime:
            return self.clock.now() - LONGEST_COMMAND_LIFE

        return self.read(CONTROL, handle, name=name, since=since)

    async def run(self) -> int:
        """Live until a signal or a failure; return the exit status."""
        tasks = [self._begin(), *(self._after_the_first(work) for work in self._work)]
        return await run_process(self.name, parts=self._parts, tasks=tasks)

    async def close(self) -> None:
        """Disconnect a process that was built for a single task and never ran."""
        for part in reversed(self._parts):
            await part.stop()

    async def _begin(self) -> None:
        if self._first:
            await self.producer.start()
        for step in self._first:
            await step()
        self._begun.set()
        await self.producer.start()  # does nothing when it is connected
        await asyncio.get_running_loop().create_future()  # the process stops when a task ends: this one lasts

    async def _after_the_first(self, work: Work) -> None:
        await self._begun.wait()
        await work()


def open_database(service: Service, settings: ProcessSettings, *, name: str, connections: int = 5) -> Database:
    """Return the database of ``settings`` for ``service``; nothing connects before first use."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        application_name=f"fincoach-{name}",
        idle_in_transaction_seconds=settings.idle_in_transaction_seconds,
        pool_size=connections,
    )
    return Database(engine, service)
