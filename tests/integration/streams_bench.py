"""A test bench: the streams service on a fresh database, fed without a broker."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

import asyncpg

from backends.broker.interface import Record
from backends.clock import ManualClock
from backends.control import CommandHandler
from backends.database.repositories.ingestion import begun_driver
from backends.database.unit_of_work import Database
from fincoach_events.events import AnyBehavioralEvent, RecommendationInteraction, encode_event
from schemas.codec import decode, encode
from schemas.messages.alerts import Alert
from schemas.messages.control import UpdateThresholds
from schemas.messages.training import ThresholdReached
from schemas.topics import ALERTS, BEHAVIORAL_EVENTS, CONTROL, THRESHOLD_REACHED
from schemas.vocabulary import ModelType
from streams.batches.batch import BatchOutcome, LedgerBatch
from streams.batches.dead_letter_limits import LimitPolicy
from streams.batches.dead_letters import DeadLetterService
from streams.batches.events import EventIngestion
from streams.batches.predictions import PredictionArchive
from streams.service import ContinuousLearningService
from tests.four_models import FOUR_MODELS, data_sets_of_four


class Fetched:
    """A record as the reader gives it."""

    def __init__(self, offset: int, event: AnyBehavioralEvent, *, at: dt.datetime, raw: bytes | None = None) -> None:
        self.offset = offset
        self.timestamp = int(at.timestamp() * 1000)
        self.key: bytes | None = str(event.user_id).encode()
        self.value: bytes | None = raw if raw is not None else encode_event(event)
        self.headers: list[tuple[str, bytes | None]] = []


class Bench:
    """The service on a fresh database, fed without a broker."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        letters = DeadLetterService(clock, LimitPolicy(), check=lambda: None)
        self._events = events = EventIngestion(
            database, clock, letters, data_sets=data_sets_of_four(), state_cache_bytes=1_000_000
        )
        self.service = ContinuousLearningService(
            database,
            clock,
            events=events,
            predictions=PredictionArchive(database, letters, models=FOUR_MODELS),
            models=FOUR_MODELS,
        )
        self.database = database
        self.clock = clock
        self._next = [0, 0]

    async def feed(
        self, events: Sequence[AnyBehavioralEvent], *, partition: int = 0, raw: bytes | None = None
    ) -> BatchOutcome:
        """Commit one batch of ``events`` on ``partition``."""
        first = self._next[partition]
        await self._known(partition)
        batch = LedgerBatch(
            topic=BEHAVIORAL_EVENTS,
            partition=partition,
            from_offset=first,
            records=[Fetched(first + n, event, at=self.clock.now(), raw=raw) for n, event in enumerate(events)],
        )
        outcome = await self.service.process_behavioral_events(batch)
        self._next[partition] = batch.to_offset
        return outcome

    async def check(self, model_type: ModelType) -> str:
        """Evaluate a data set and return the sentence."""
        evaluation = await self.service.check_training_readiness(model_type)
        return evaluation.sentence if evaluation else "locked"

    def forget_states(self) -> None:
        """Forget partition 0, like a worker that has just been assigned it."""
        self._events.forget(0)

    async def _known(self, partition: int) -> None:
        async with self.database.transaction() as work:
            driver = await begun_driver(work)
            await driver.execute(
                "INSERT INTO ledger VALUES ($1, 1, $2, 0) ON CONFLICT DO NOTHING", BEHAVIORAL_EVENTS.name, partition
            )


async def crossings(connection: asyncpg.Connection) -> list[ThresholdReached]:
    """Return the announced crossings."""
    rows = await connection.fetch("SELECT payload FROM outbox WHERE topic = $1 ORDER BY id", THRESHOLD_REACHED.name)
    return [decode(THRESHOLD_REACHED, row["payload"]) for row in rows]


async def alerts(connection: asyncpg.Connection) -> list[Alert]:
    """Return the alerts that were raised and cleared."""
    rows = await connection.fetch("SELECT payload FROM outbox WHERE topic = $1 ORDER BY id", ALERTS.name)
    return [decode(ALERTS, row["payload"]) for row in rows]


def feedback(number: int, **changes: object) -> RecommendationInteraction:
    """Return an answer to a recommendation that was never shown."""
    fields: dict[str, object] = {
        "event_id": uuid.uuid5(uuid.NAMESPACE_OID, f"answer-{number}"),
        "user_id": uuid.uuid5(uuid.NAMESPACE_OID, f"user-{number % 40}"),
        "occurred_at": dt.datetime(2026, 1, 5, tzinfo=dt.UTC) + dt.timedelta(minutes=number),
        "consent": True,
        "recommendation_id": "auto_generated",
        "interaction_type": "implement",
        **changes,
    }
    return RecommendationInteraction(**fields)  # type: ignore[arg-type]


async def send(bench: Bench, **fields: object) -> None:
    """Handle an UpdateThresholds command."""
    command = UpdateThresholds(
        event_id=uuid.uuid4(), occurred_at=bench.clock.now(), issuer="tester",
        expires_at=bench.clock.now() + dt.timedelta(minutes=5), **{"model_type": "spending", **fields},  # type: ignore[arg-type]
    )  # fmt: skip
    record = Record(
        topic=CONTROL.name, partition=0, offset=0, key=b"spending", value=encode(command), timestamp=bench.clock.now()
    )
    handler = CommandHandler(
        bench.database, bench.clock, {UpdateThresholds: bench.service.update_thresholds}, models=FOUR_MODELS
    )
    await handler.handle(record)


async def answers(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Return outcome and detail of every command."""
    rows = await connection.fetch("SELECT outcome, detail FROM command_inbox ORDER BY received_at")
    return [(row["outcome"], row["detail"]) for row in rows]
