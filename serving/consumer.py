"""The edge to Kafka: desired states from the compacted topic, from its beginning, to the followers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from backends.broker.connecting import connected
from backends.broker.processor import Processor
from backends.telemetry.logs import get_logger
from schemas import codec
from schemas.topics import MODEL_DEPLOYMENTS
from schemas.vocabulary import ModelType

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.broker.kafka import BrokerConsumer, BrokerProducer
    from serving.follower import ModelFollower

log = get_logger("serving.consumer")


class DeploymentConsumer:
    """Reads desired states for as long as it runs; a broker that is away delays it and nothing else."""

    def __init__(
        self, new_consumer: Callable[[], BrokerConsumer], followers: Mapping[ModelType, ModelFollower]
    ) -> None:
        self._new_consumer = new_consumer
        self._followers = followers

    async def run(self) -> None:
        """Read until cancelled."""
        consumer = await connected(self._new_consumer)
        try:
            await Processor(consumer, self.handle, self.put_aside, name="serving-deployments").run()
        finally:
            await consumer.stop()

    async def handle(self, record: Record) -> None:
        """Hand one desired state to its follower; tombstones and older states change nothing.

        Raises:
            InvalidMessageError: the record is no desired state.
        """
        if not record.value:
            return
        state = codec.decode(MODEL_DEPLOYMENTS, record.value)
        if self._followers[state.model_type].desire(state):
            log.info(
                "desired_state_received",
                model_type=state.model_type,
                sequence=state.sequence,
                version=state.active.version,
            )

    async def put_aside(self, record: Record, reason: str, detail: str) -> None:
        """Log what is no desired state: the topic is the deployer's own, a replica only reads it."""
        log.warning("desired_state_unreadable", offset=record.offset, reason=reason, detail=detail)


async def keep_connected(producer: BrokerProducer) -> None:
    """Connect ``producer`` when the broker answers, then wait for ever: a task of the replica's life."""
    await producer.start()
    await asyncio.get_running_loop().create_future()
