"""A steady stream of events from our own producer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from backends.clock import SystemClock
from benchmarks.event_templates import Stream, templates_of
from benchmarks.services import BenchmarkError, Services
from benchmarks.workload import behavioral_events
from fincoach_events import EventProducer, ProducerSettings
from fincoach_events.accounts import AcknowledgedCallback

TEMPLATES = 50_000
_TICK_SECONDS = 0.01
_FLUSH_SECONDS = 60.0


class Flow:
    """Sends events: a given number at once, or at a rate during a block."""

    def __init__(self, brokers: str, stream: Stream, *, on_acknowledged: AcknowledgedCallback | None) -> None:
        self.sent = 0
        self._clock = SystemClock()
        self._stream = stream
        self._producer = EventProducer(
            brokers,
            consent_default=True,
            source="bench",
            settings=ProducerSettings(max_block_seconds=_FLUSH_SECONDS, compression=None),
            on_acknowledged=on_acknowledged,
        )

    @property
    def acknowledged(self) -> int:
        """Return how many events the broker has acknowledged."""
        return self._producer.acknowledged

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Send all accepted events and disconnect."""
        await self._producer.close(_FLUSH_SECONDS)

    async def send(self, count: int) -> None:
        """Pass ``count`` events to the producer; wait only for room in its buffer."""
        for event in self._stream.take(count, at=self._clock.now()):
            await self._producer.send_bytes(event.value, key=event.key)
            self.sent += 1

    async def flush(self) -> None:
        """Wait until all events are acknowledged."""
        await self._producer.flush(_FLUSH_SECONDS)

    @contextlib.asynccontextmanager
    async def at_rate(self, events_per_second: float) -> AsyncIterator[None]:
        """Send at a rate during the block.

        Raises:
            BenchmarkError: sending failed.
        """
        sending = asyncio.create_task(self._run(events_per_second))
        try:
            yield
        finally:
            sending.cancel()
            (ended,) = await asyncio.gather(sending, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                raise BenchmarkError(f"the flow of events stopped early: {ended!r}")

    async def _run(self, events_per_second: float) -> None:
        started, before = time.perf_counter(), self.sent
        while True:
            due = int((time.perf_counter() - started) * events_per_second)
            await self.send(due - (self.sent - before))
            await asyncio.sleep(_TICK_SECONDS)


@contextlib.asynccontextmanager
async def flowing(
    services: Services, *, user_life: int | None = None, on_acknowledged: AcknowledgedCallback | None = None
) -> AsyncIterator[Flow]:
    """Give a started flow of events; with ``user_life``, a new user replaces each one after that many events."""
    templates = templates_of(behavioral_events(TEMPLATES, ends_at=SystemClock().now()))
    stream = Stream(templates, salt=time.monotonic_ns(), user_life=user_life)
    flow = Flow(services.brokers, stream, on_acknowledged=on_acknowledged)
    await flow.start()
    try:
        yield flow
    finally:
        await flow.stop()
