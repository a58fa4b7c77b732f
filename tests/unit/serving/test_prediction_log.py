"""The background log of predictions."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Sequence
from uuid import UUID, uuid4

from backends.broker.interface import OutgoingRecord
from backends.telemetry.metrics import REGISTRY
from schemas import codec
from schemas.errors import RetryLaterError
from schemas.messages.predictions import PredictionServed
from schemas.topics import PREDICTIONS
from schemas.vocabulary import ArtifactKind
from serving.prediction_log import PredictionLog

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


class Topic:
    """A topic that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.keys: list[bytes | None] = []
        self.ids: list[UUID] = []
        self.filled = asyncio.Event()

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Take all or nothing."""
        if self.away:
            raise RetryLaterError
        for _, key, value, _ in records:
            self.keys.append(key)
            self.ids.append(codec.decode(PREDICTIONS, value or b"").event_id)
        self.filled.set()


def prediction() -> PredictionServed:
    """Return a logged answer."""
    return PredictionServed(
        event_id=uuid4(), occurred_at=NOON, replica_id="r", user_id=uuid4(), model_type="goal", version="1.0.0",
        artifact_digest="0" * 64, kind=ArtifactKind.LEARNED, as_of=NOON, reducer_version=1, features=(1.0,), answer={}, latency_ms=1.0,
    )  # fmt: skip


def lost() -> float:
    """Return how many predictions were counted as lost."""
    return REGISTRY.get_sample_value("fincoach_serving_prediction_log_lost_total") or 0.0


async def test_predictions_reach_the_topic_under_their_users_key_and_in_order() -> None:
    """Predictions reach the topic in order, under their user's key."""
    topic = Topic()
    log, predictions = PredictionLog(topic, limit=2000), [prediction() for _ in range(1200)]
    assert all(log.offer(item) for item in predictions)
    task = asyncio.create_task(log.run())
    async with asyncio.timeout(10):
        while len(topic.ids) < len(predictions):
            topic.filled.clear()
            await topic.filled.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert topic.ids == [item.event_id for item in predictions]
    assert topic.keys[0] == str(predictions[0].user_id).encode()


async def test_what_does_not_fit_is_lost_and_counted() -> None:
    """A prediction that the queue has no space for is lost and counted."""
    before, log = lost(), PredictionLog(Topic(), limit=2)
    assert [log.offer(prediction()) for _ in range(3)] == [True, True, False]
    assert lost() - before == 1


async def test_a_broker_that_is_away_loses_nothing_while_the_queue_has_space() -> None:
    """A short outage of the broker loses no prediction."""
    topic, before = Topic(), lost()
    log = PredictionLog(topic, limit=10)
    log.offer(prediction())
    topic.away = True
    with contextlib.suppress(RetryLaterError):
        await log.publish_once()
    assert len(log) == 1
    topic.away = False
    await log.stop()
    assert (len(topic.ids), lost() - before) == (1, 0)


async def test_what_cannot_be_flushed_at_the_end_is_counted() -> None:
    """Predictions that cannot be flushed at the end are counted."""
    topic, before = Topic(), lost()
    topic.away = True
    log = PredictionLog(topic, limit=10)
    log.offer(prediction())
    log.offer(prediction())
    await log.stop()
    assert lost() - before == 2
