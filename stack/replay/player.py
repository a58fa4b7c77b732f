"""Plays a source to the topic at a chosen speed, with progress, until its end or a stop."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from backends.waiting import wait_at_most
from fincoach_events import EventProducer, ProducerSettings
from fincoach_events.buffer import OutgoingEvent
from fincoach_events.errors import EventTooLargeError, ProducerBusyError, UndeliveredEventsError
from schemas.errors import FinCoachError
from stack.replay.journal import Journal
from stack.replay.source import RawRecord, ReplayItem, Source

ProgressCallback = Callable[[int, int, int | None], None]
"""Called with the number of records sent, the number acknowledged, and the total (None: unknown)."""

_YIELD_EVERY_RECORDS = 200  # let other tasks run after this many, even if nothing else does
_REPEATABLE = 1_000  # a repeated event is one of the last 1,000
_LARGEST_RECORD_BYTES = 3 * 1024 * 1024  # above the limit of an event, so that an oversized line becomes a dead letter


class ReplayFailedError(FinCoachError):
    """Some records of a replay were not acknowledged by the broker."""


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """How a source is played.

    Attributes:
        events_per_second: speed; 0 plays as fast as the broker accepts.
        limit: play only this many events.
        duplicate_ratio: share of records, 0..1, after which an earlier event is sent again.
        seed: seed of the choice of repeated events.
        flush_seconds: longest wait for the last acknowledgements.
    """

    events_per_second: float = 0.0
    limit: int | None = None
    duplicate_ratio: float = 0.0
    seed: int = 0
    flush_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse invalid settings.

        Raises:
            ValueError: a negative speed or limit, or a ratio outside 0..1.
        """
        if self.events_per_second < 0 or (self.limit is not None and self.limit < 0):
            raise ValueError(
                "speed and limit of a replay cannot be negative; 0 events per second means as fast as possible"
            )
        if not 0.0 <= self.duplicate_ratio <= 1.0:
            raise ValueError("the share of duplicates is a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """The outcome of a play, by the producer's counters; compare it with the journal.

    Attributes:
        sent: records accepted by the producer, repetitions included.
        acknowledged: records that the broker acknowledged.
        repeated: records that were sent again on purpose.
        was_stopped: whether it was stopped before the end of the source.
        seconds: how long it took.
    """

    sent: int
    acknowledged: int
    repeated: int
    was_stopped: bool
    seconds: float


class Player:
    """Plays one source once.

    Args:
        brokers: Kafka addresses.
        journal: gets a line per acknowledged record; the caller closes it.
        settings: speed and limits.
        producer_settings: settings of the producer, for example another topic.
        on_progress: see :data:`ProgressCallback`; called several times a second.
    """

    def __init__(
        self,
        brokers: str,
        journal: Journal,
        *,
        settings: PlaySettings | None = None,
        producer_settings: ProducerSettings | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self._brokers = brokers
        self._journal = journal
        self._settings = settings or PlaySettings()
        self._producer_settings = producer_settings or ProducerSettings(max_event_bytes=_LARGEST_RECORD_BYTES)
        self._on_progress = on_progress
        self._stopped = asyncio.Event()
        self._sent = 0
        self._repeated = 0
        self._losses: list[str] = []

    def stop(self) -> None:
        """End the play after the current record; :meth:`play` then returns as at the end of the source."""
        self._stopped.set()

    async def play(self, source: Source) -> PlayReport:
        """Send the source's events in order; return when the broker has acknowledged all of them.

        While the broker is away, the play waits.

        Raises:
            ReplayFailedError: some records were not acknowledged; the others are in the journal.
        """
        started = time.monotonic()
        producer = EventProducer(
            self._brokers,
            consent_default=True,
            source=f"replay:{source.name}",
            settings=self._producer_settings,
            on_acknowledged=self._journal.note,
            on_undelivered=self._note_loss,
        )
        await producer.start()
        try:
            await self._play(source, producer, started)
            await producer.flush(self._settings.flush_seconds)
        except UndeliveredEventsError as error:
            raise self._failure(error) from error
        finally:
            await self._close(producer)
        self._show(source, producer)
        return PlayReport(
            sent=self._sent,
            acknowledged=producer.acknowledged,
            repeated=self._repeated,
            was_stopped=self._stopped.is_set(),
            seconds=time.monotonic() - started,
        )

    async def _play(self, source: Source, producer: EventProducer, started: float) -> None:
        repeats = _Repeats(self._settings.duplicate_ratio, seed=self._settings.seed)
        async for item in _items(source, self._settings.limit):
            if self._stopped.is_set():
                return
            await self._send(item, producer)
            if (earlier := repeats.after(item)) is not None:
                self._repeated += 1
                await self._send(earlier, producer)
            if self._sent % _YIELD_EVERY_RECORDS == 0:
                self._show(source, producer)
            await self._keep_pace(started)

    async def _send(self, item: ReplayItem, producer: EventProducer) -> None:
        while not self._stopped.is_set():
            try:
                if isinstance(item, RawRecord):
                    await producer.send_bytes(item.value, key=item.key, event_id=item.event_id)
                else:
                    await producer.send(item)
            except ProducerBusyError:
                continue  # the broker is slow or away; the buffer holds the earlier events
            except EventTooLargeError as error:
                raise ReplayFailedError(f"record {self._sent + 1} is too large to be sent: {error.detail}") from error
            self._sent += 1
            return

    async def _keep_pace(self, started: float) -> None:
        if self._settings.events_per_second > 0:
            ahead = self._sent / self._settings.events_per_second - (time.monotonic() - started)
            if ahead > 0.005:  # noqa: PLR2004 - the timer cannot keep shorter sleeps
                await wait_at_most(self._stopped, ahead)
        if self._sent % _YIELD_EVERY_RECORDS == 0:
            await asyncio.sleep(0)

    def _show(self, source: Source, producer: EventProducer) -> None:
        if self._on_progress is not None:
            total = (
                source.size
                if self._settings.limit is None or source.size is None
                else min(source.size, self._settings.limit)
            )
            self._on_progress(self._sent, producer.acknowledged, total)

    def _note_loss(self, outgoing: OutgoingEvent, reason: str) -> None:
        self._losses.append(f"{outgoing.event_id}: {reason}")

    def _failure(self, error: UndeliveredEventsError) -> ReplayFailedError:
        first = f", the first one: {self._losses[0]}" if self._losses else ""
        return ReplayFailedError(
            f"{len(error.event_ids)} records were not acknowledged by {self._brokers}{first}; is the broker up? "
            "Play the source again: events that it already has are dropped as duplicates"
        )

    async def _close(self, producer: EventProducer) -> None:
        try:
            await producer.close()
        except UndeliveredEventsError as error:
            raise self._failure(error) from error
        finally:
            self._journal.flush()


async def _items(source: Source, limit: int | None) -> AsyncIterator[ReplayItem]:
    """Yield a source's events; a source of unknown size may block (a pipe), so a thread reads it."""
    items = source.events(limit)
    if source.size is not None:
        for item in items:
            yield item
        return
    while (next_item := await asyncio.to_thread(next, items, None)) is not None:
        yield next_item


class _Repeats:
    """Chooses earlier events to send again."""

    def __init__(self, ratio: float, *, seed: int) -> None:
        self._ratio = ratio
        self._generator = np.random.default_rng(seed)
        self._recent: collections.deque[ReplayItem] = collections.deque(maxlen=_REPEATABLE)

    def after(self, item: ReplayItem) -> ReplayItem | None:
        """Return the event to repeat after ``item``, if one is due."""
        if self._ratio == 0.0:
            return None
        self._recent.append(item)
        if self._generator.random() >= self._ratio:
            return None
        return self._recent[int(self._generator.integers(len(self._recent)))]


@contextmanager
def rich_progress(label: str, *, console: Console | None = None) -> Iterator[ProgressCallback]:
    """Show a progress bar while the block runs; yields the player's ``on_progress``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[acknowledged]} acknowledged"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None, acknowledged=0)

        def show(sent: int, acknowledged: int, total: int | None) -> None:
            progress.update(task, completed=sent, total=total, acknowledged=acknowledged)

        yield show
