"""The life of a deployer: keys, agreement with the topic, baselines, then candidates, commands and replicas until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from backends.broker.connecting import connected
from backends.broker.processor import Processor
from backends.telemetry.logs import get_logger
from schemas.errors import RetryLaterError

if TYPE_CHECKING:
    import datetime as dt

    from backends.broker.interface import DeadLetterSink, Handler
    from backends.broker.kafka import BrokerConsumer, BrokerProducer
    from deployer.baselines import BaselineDeployment
    from deployer.standing import TopicStanding
    from schemas.vocabulary import ModelType

log = get_logger("deployer")
LOOK_AGAIN_SECONDS = 5.0
RETRY_SECONDS = 1.0
AWAY: tuple[type[Exception], ...] = (RetryLaterError, OSError)  # database, broker or store


class Reader:
    """One consumer with its handler; ``since`` for consumers that begin at a moment."""

    def __init__(
        self,
        name: str,
        new_consumer: Callable[[], BrokerConsumer],
        handler: Handler,
        *,
        since: Callable[[], dt.datetime] | None = None,
    ) -> None:
        self._name = name
        self._new_consumer = new_consumer
        self._handler = handler
        self._since = since
        self.is_connected = False

    async def run(self, dead_letters: DeadLetterSink) -> None:
        """Read until cancelled."""
        consumer = await connected(self._new_consumer, since=self._since)
        self.is_connected = True
        try:
            await Processor(consumer, self._handler, dead_letters, name=self._name).run()
        finally:
            await consumer.stop()


class DeployerRoom:
    """Starts in order and runs; readiness says how far it is."""

    def __init__(
        self,
        producer: BrokerProducer,
        standing: TopicStanding,
        baselines: BaselineDeployment,
        *,
        readers: Sequence[Reader],
        beside: Sequence[Callable[[], Awaitable[None]]],
        dead_letters: DeadLetterSink,
    ) -> None:
        self._producer = producer
        self._standing = standing
        self._baselines = baselines
        self._readers = readers
        self._beside = beside
        self._dead_letters = dead_letters
        self._ahead: tuple[ModelType, ...] = ()
        self._is_settled = False

    def readiness(self) -> dict[str, bool]:
        """Return the checks of the health endpoint."""
        return {
            "topic_not_ahead_of_database": not self._ahead,
            "baselines_deployed": self._is_settled,
            "consumers_connected": all(reader.is_connected for reader in self._readers),
        }

    def facts(self) -> dict[str, object]:
        """Return what a person wants to know when it is not ready."""
        if not self._ahead:
            return {}
        return {"topic_ahead": list(self._ahead), "next": "python -m deployer reconcile"}

    async def run(self) -> None:
        """Run until cancelled."""
        await self._producer.start()
        await self._settle()
        async with asyncio.TaskGroup() as group:
            for work in self._beside:
                group.create_task(_awaited(work))
            for reader in self._readers:
                group.create_task(reader.run(self._dead_letters))

    async def _settle(self) -> None:
        """Return when database and topic agree and every model has a version; waits for a person while the topic is ahead."""
        while not self._is_settled:
            try:
                self._ahead = await self._standing.settle()
                if not self._ahead:
                    await self._baselines.ensure()
                    self._is_settled = True
                    return
            except AWAY as error:
                log.warning("start_delayed", error=repr(error))
            await asyncio.sleep(LOOK_AGAIN_SECONDS if self._ahead else RETRY_SECONDS)


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
