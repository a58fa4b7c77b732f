"""Compares the topic with the database at the start: publishes what is missing, and stops while the topic is ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.broker.connecting import connected, read_to_end
from backends.database.repositories.deployment import DeploymentRepository, Move
from backends.telemetry.logs import get_logger
from deployer.announcements import alert_raised, announce, desired_state
from deployer.reconciliation import Comparison, compare, explanation
from schemas import codec
from schemas.codec import encode
from schemas.errors import InvalidMessageError
from schemas.topics import ALERTS, MODEL_DEPLOYMENTS
from schemas.vocabulary import ModelType

if TYPE_CHECKING:
    from backends.broker.interface import Record
    from backends.broker.kafka import BrokerConsumer, BrokerProducer
    from backends.clock import Clock
    from backends.database.unit_of_work import Database
    from deployer.baselines import BaselineDeployment

log = get_logger("deployer.agreement")


class TopicAgreement:
    """Compares the compacted topic with the database."""

    def __init__(
        self, database: Database, producer: BrokerProducer, clock: Clock, *, new_consumer: Callable[[], BrokerConsumer]
    ) -> None:
        self._database = database
        self._producer = producer
        self._clock = clock
        self._new_consumer = new_consumer

    async def look(self) -> tuple[Comparison, dict[ModelType, int], dict[ModelType, int]]:
        """Return the comparison, the topic's sequences and the database's; the topic is read first, so that it cannot seem ahead by a race."""
        topic = await self._topic_sequences()
        async with self._database.reading() as connection:
            desired = await DeploymentRepository(connection).all_desired()
        database = {model: row.sequence for model, row in desired.items()}
        return compare(database=database, topic=topic), topic, database

    async def settle(self) -> tuple[ModelType, ...]:
        """Publish again what the topic lacks; return the models whose topic is ahead (then nothing is published and alerts are raised)."""
        comparison, topic, database = await self.look()
        if comparison.ahead:
            for model_type in comparison.ahead:
                await self._raise(
                    model_type, explanation(model_type, database=database.get(model_type, 0), topic=topic[model_type])
                )
            return comparison.ahead
        await self._publish_again([model for model in comparison.behind if model in database])
        return ()

    async def reconcile(self, baselines: BaselineDeployment) -> list[str]:
        """Make the database's desired state the newest of each model whose topic is ahead; return a sentence for each."""
        comparison, topic, _ = await self.look()
        return [
            await self._raise_sequence(model_type, topic[model_type] + 1, baselines) for model_type in comparison.ahead
        ]

    async def _raise_sequence(self, model_type: ModelType, sequence: int, baselines: BaselineDeployment) -> str:
        async with self._database.transaction() as work:
            repository = DeploymentRepository(work.connection)
            await repository.lock(model_type)
            desired = await repository.desired(model_type)
            if desired is not None:
                await repository.move(Move(desired, desired.active, desired.previous), sequence=sequence)
                state = desired_state(desired._replace(sequence=sequence), now=self._clock.now())
                await announce(work, state)
                details = {"version": desired.active.version, "from_sequence": desired.sequence, "sequence": sequence}
                await work.audit(
                    actor="operator", action="reconcile", subject=model_type, outcome="succeeded", details=details
                )
                return f"{model_type}: {desired.active.version} is desired state {sequence} now"
        await baselines.deploy(model_type, sequence=sequence)
        return f"{model_type}: the database knew no version; its baseline is desired state {sequence} now"

    async def _publish_again(self, models: list[ModelType]) -> None:
        async with self._database.transaction() as work:
            repository = DeploymentRepository(work.connection)
            for model_type in models:
                desired = await repository.desired(model_type)
                if desired is not None:
                    await announce(work, desired_state(desired, now=self._clock.now()))
                    log.info("desired_state_published_again", model_type=model_type, sequence=desired.sequence)

    async def _topic_sequences(self) -> dict[ModelType, int]:
        consumer = await connected(self._new_consumer)
        try:
            sequences: dict[ModelType, int] = {}
            for record in await read_to_end(consumer):
                _take(record, sequences)
            return sequences
        finally:
            await consumer.stop()

    async def _raise(self, model_type: ModelType, detail: str) -> None:
        """Publish directly: while the topic is ahead, no outbox row is published."""
        log.warning("topic_ahead_of_database", model_type=model_type, detail=detail)
        raised = alert_raised(
            name="topic_ahead_of_database", subject=model_type, detail=detail, now=self._clock.now(), facts={}
        )
        await self._producer.publish(ALERTS.name, model_type.encode(), encode(raised))


def _take(record: Record, sequences: dict[ModelType, int]) -> None:
    if not record.value:
        return
    try:
        state = codec.decode(MODEL_DEPLOYMENTS, record.value)
    except InvalidMessageError as error:
        log.warning("desired_state_unreadable", offset=record.offset, error=str(error))
        return
    sequences[state.model_type] = max(state.sequence, sequences.get(state.model_type, 0))
