"""The loop of every plain consumer: fetch, handle, commit; back off when asked to; dead-letter what cannot be handled."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from schemas.errors import InvalidMessageError, RetryLaterError

if TYPE_CHECKING:
    from backends.broker.interface import DeadLetterSink, Handler, Record
    from backends.broker.kafka import BrokerConsumer

log = get_logger("processor")
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
MEASURE_SECONDS = 2.0


class Processor:
    """Feeds one consumer's records to a handler, one at a time and in order.

    A record is committed after it was handled or dead-lettered, never before. The handler
    may therefore see a record twice, and must be idempotent.
    """

    def __init__(self, consumer: BrokerConsumer, handler: Handler, dead_letters: DeadLetterSink, *, name: str) -> None:
        self._consumer = consumer
        self._handler = handler
        self._dead_letters = dead_letters
        self._name = name
        self.caught_up = asyncio.Event()
        self._measure_at = 0.0

    async def run(self) -> None:
        """Process until cancelled.

        Raises:
            Exception: any other error of the handler: a bug, which stops the process.
        """
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                records = await self._consumer.fetch(timeout_seconds=0.5)
                await self._handle_all(records)
                await self._measure(idle=not records)
                delay = FIRST_DELAY_SECONDS
            except RetryLaterError as error:
                METRICS.messages_handled.labels(group=self._name, outcome="retried").inc()
                log.warning("processing_delayed", consumer=self._name, error=str(error), delay_seconds=delay)
                with suppress(RetryLaterError):  # show that the backlog behind the record grows
                    await self._measure(idle=False)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)

    async def _handle_all(self, records: list[Record]) -> None:
        for position, record in enumerate(records):
            try:
                await self._handle(record)
                if self._consumer.group is not None:
                    await self._consumer.commit(record)
            except RetryLaterError:
                self._rewind(records[position:])
                raise

    def _rewind(self, unfinished: list[Record]) -> None:
        first: dict[tuple[str, int], Record] = {}
        for record in unfinished:
            first.setdefault((record.topic, record.partition), record)
        for record in first.values():
            self._consumer.rewind(record)

    async def _handle(self, record: Record) -> None:
        try:
            await self._handler(record)
            outcome = "handled"
        except InvalidMessageError as error:
            await self._dead_letters(record, error.reason, error.detail)
            outcome = "dead_lettered"
        METRICS.messages_handled.labels(group=self._name, outcome=outcome).inc()

    async def _measure(self, *, idle: bool) -> None:
        now = time.monotonic()
        if not idle and now < self._measure_at:
            return
        self._measure_at = now + MEASURE_SECONDS
        lags = await self._consumer.lags()
        for lag in lags:
            labels = {"group": self._name, "topic": lag.topic, "partition": str(lag.partition)}
            METRICS.consumer_position.labels(**labels).set(lag.position)
            METRICS.consumer_lag.labels(**labels).set(lag.records)
        # A group member without a partition has nothing to catch up with: it stands by.
        if idle and not any(lag.records for lag in lags):
            self.caught_up.set()
