"""Publishes answers to the predictions topic in the background: a bounded queue, batches, and a count of losses."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas.codec import encode
from schemas.errors import RetryLaterError
from schemas.messages.predictions import PredictionServed
from schemas.topics import PREDICTIONS

if TYPE_CHECKING:
    from backends.broker.interface import OutgoingRecord

log = get_logger("serving.prediction_log")
BATCH_RECORDS = 500
PAUSE_SECONDS = 0.02  # gathers a batch; a record is logged some 20 ms after its answer
LONGEST_DELAY_SECONDS = 5.0


class Publisher(Protocol):
    """What the log needs of a producer."""

    async def publish_batch(self, records: Sequence[OutgoingRecord]) -> None:
        """Send in order; return when all are acknowledged.

        Raises:
            RetryLaterError: when the broker is away; all may be sent again.
        """


class PredictionLog:
    """Logs predictions at least once while the queue has space; the archive drops repeats by prediction id."""

    def __init__(self, publisher: Publisher, *, limit: int, flush_seconds: float = 3.0) -> None:
        self._publisher = publisher
        self._limit = limit
        self._flush_seconds = flush_seconds
        self._waiting: deque[PredictionServed] = deque()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, prediction: PredictionServed) -> bool:
        """Queue ``prediction`` without waiting; return False, and count the loss, when the queue is full."""
        if len(self._waiting) >= self._limit:
            METRICS.serving_log_lost.inc()
            return False
        self._waiting.append(prediction)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Publish until cancelled; wait longer and longer while the broker is away."""
        delay = PAUSE_SECONDS
        while True:
            await self._wake.wait()
            await asyncio.sleep(delay)
            try:
                await self.publish_once()
                delay = PAUSE_SECONDS
            except RetryLaterError as error:
                delay = min(max(delay * 2, 0.2), LONGEST_DELAY_SECONDS)
                log.warning("prediction_log_delayed", waiting=len(self), delay_seconds=delay, error=str(error))

    async def publish_once(self) -> int:
        """Publish up to 500 predictions and return how many; they stay queued until all are acknowledged.

        Raises:
            RetryLaterError: when the broker is away.
        """
        batch = [self._waiting[position] for position in range(min(len(self._waiting), BATCH_RECORDS))]
        if batch:
            await self._publisher.publish_batch([_record(prediction) for prediction in batch])
        for _ in batch:
            self._waiting.popleft()
        if not self._waiting:
            self._wake.clear()
        METRICS.serving_log_queue.set(len(self._waiting))
        return len(batch)

    async def start(self) -> None:
        """Do nothing: the log takes predictions from the beginning."""

    async def stop(self) -> None:
        """Publish what waits; give up after a few seconds and count what is lost."""
        try:
            async with asyncio.timeout(self._flush_seconds):
                while self._waiting:
                    await self.publish_once()
        except (RetryLaterError, TimeoutError) as error:
            METRICS.serving_log_lost.inc(len(self._waiting))
            log.warning("predictions_not_logged", lost=len(self._waiting), error=repr(error))


def _record(prediction: PredictionServed) -> OutgoingRecord:
    return (PREDICTIONS.name, str(prediction.user_id).encode(), encode(prediction), {})
