"""What a batch does with records that cannot be archived: keeps them, judges their producers, and resolves retries.

All of it happens in the batch's transaction. If a producer exceeds a limit, the worker first checks itself against the
golden messages: a broken worker stops with the batch uncommitted, and a broken producer only raises an alert. A batch
without dead letters and retried records costs only a scan of its headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.broker.interface import Record
from backends.database.repositories.dead_letters import DeadLetterRepository, DeadLetterRow
from backends.dead_letters import announced, dead_letter_headers, retry_of, storable
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from fincoach_events.identifiers import new_event_id
from schemas.dead_letters import RETRY_OF_HEADER, UNKNOWN_PRODUCER
from schemas.messages.alerts import AlertCleared, AlertRaised
from schemas.topics import ALERTS, BEHAVIORAL_EVENTS, PREDICTIONS
from schemas.vocabulary import Service
from streams.batches.batch import record_time
from streams.batches.dead_letter_limits import Excess, LimitPolicy, LimitWindow, Tally

if TYPE_CHECKING:
    from backends.clock import Clock
    from backends.database.unit_of_work import Database, UnitOfWork
    from streams.batches.batch import LedgerBatch
    from streams.batches.intake import DeadLetter, FetchedRecord, Intake

log = get_logger("streams.batches.dead_letters")
LIMIT_ALERT = "dead_letter_limit"
REFRESHES = 6  # of an ongoing alert in one window
MOST_PRODUCERS = 1_000  # watched by name, so that a flood of invented names does not fill the memory
Place = tuple[str, int, int]
# The claimed sender of a message, with its offset, so that one pass over a batch is enough.
SENDERS = {
    BEHAVIORAL_EVENTS.name: attrgetter("message.source", "offset"),
    PREDICTIONS.name: attrgetter("message.replica_id", "offset"),
}


class _Kept(NamedTuple):
    """A dead letter with its headers."""

    dead_letter: DeadLetter
    headers: dict[str, str]

    @property
    def producer(self) -> str:
        return self.headers["producer"]


class DeadLetterService:
    """Keeps the dead letters of a worker's batches and watches the limits of producers."""

    def __init__(self, clock: Clock, policy: LimitPolicy, *, check: Callable[[], None]) -> None:
        self._clock = clock
        self._policy = policy
        self._check = check
        self._window = LimitWindow(policy)
        self._refreshed: dict[str, tuple[float, Place]] = {}

    async def keep(self, work: UnitOfWork, batch: LedgerBatch, intake: Intake[Any]) -> None:
        """Handle the dead letters of ``batch`` in its transaction; call it last, when all of them are known.

        Raises:
            BrokenReceiverError: a limit is exceeded because this worker is broken.
        """
        if any(record.headers for record in batch.records):
            await _settle(work, intake)
        if not intake.dead and not self._window.watched(self._clock.monotonic()):
            return
        kept = [_Kept(dead_letter, _headers(batch, dead_letter)) for dead_letter in intake.dead]
        exceeded = self._exceeded(batch, intake, kept)
        if exceeded:
            self._check()
        if kept:
            await _write(work, batch, kept)
        for excess in sorted(exceeded):
            await self._raise(work, batch, excess)

    async def clear(self, database: Database) -> list[str]:
        """Clear the alerts about producers that exceeded no limit at any worker for a whole window; return the producers."""
        async with database.transaction() as work:
            rows = await DeadLetterRepository(work).forget_limits(self._policy.window_seconds)
            for row in rows:
                detail = f"no limit was exceeded for {self._policy.window_seconds:g} s; before: {row.detail}"
                message = AlertCleared(
                    **self._alert(row.producer, detail, facts={}), causation_id=row.alert_id, correlation_id=row.alert_id
                )  # fmt: skip
                await work.publish(ALERTS, row.producer, message)
        return [row.producer for row in rows]

    def _exceeded(self, batch: LedgerBatch, intake: Intake[Any], kept: list[_Kept]) -> list[Excess]:
        now = self._clock.monotonic()
        tallies = tallied(kept, self._valid(batch, intake), watched=self._window.watched(now))
        *partition, offset = place_of(batch)
        return self._window.take(tuple(partition), offset, tallies, now=now)

    def _valid(self, batch: LedgerBatch, intake: Intake[Any]) -> list[tuple[str, int]]:
        dead = {dead_letter.record.offset for dead_letter in intake.dead}
        senders = map(SENDERS[batch.topic.name], intake.accepted)
        return [sender for sender in senders if sender[1] not in dead]

    async def _raise(self, work: UnitOfWork, batch: LedgerBatch, excess: Excess) -> None:
        if self._is_fresh(batch, excess.producer):
            return
        facts = {"dead": excess.dead, "records": excess.records, "consecutive": excess.consecutive}
        alert = AlertRaised(**self._alert(excess.producer, excess.sentence, facts=facts))
        if await DeadLetterRepository(work).remember_limit(excess.producer, alert.event_id, excess.sentence):
            await work.publish(ALERTS, excess.producer, alert)
            log.warning("dead_letter_limit_exceeded", producer=excess.producer, **facts)
        now = self._clock.monotonic()
        recent = {who: seen for who, seen in self._refreshed.items() if now - seen[0] < self._policy.window_seconds}
        self._refreshed = recent | {excess.producer: (now, place_of(batch))}

    def _is_fresh(self, batch: LedgerBatch, producer: str) -> bool:
        """Whether another batch than this one has noted the excess a moment ago."""
        if producer not in self._refreshed:
            return False
        moment, place = self._refreshed[producer]
        return place != place_of(batch) and self._clock.monotonic() - moment < self._policy.window_seconds / REFRESHES

    def _alert(self, producer: str, detail: str, *, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "event_id": new_event_id(), "occurred_at": self._clock.now(), "name": LIMIT_ALERT, "subject": producer,
            "service": Service.STREAMS, "detail": detail, "facts": facts,
        }  # fmt: skip


def place_of(batch: LedgerBatch) -> Place:
    """Return where a batch begins, which identifies it when it is tried again."""
    return (batch.topic.name, batch.partition, batch.from_offset)


def tallied(kept: Iterable[_Kept], valid: list[tuple[str, int]], *, watched: Iterable[str]) -> dict[str, Tally]:
    """Return the tally of each producer with dead letters in this batch or recent ones. Pure.

    Dead letters without a readable producer count as those of an unknown one, and so do those of producers beyond
    :data:`MOST_PRODUCERS`. All valid records count against them.
    """
    dead: dict[str, list[int]] = {producer: [] for producer in watched}
    for each in kept:
        known = each.producer in dead or len(dead) < MOST_PRODUCERS
        dead.setdefault(each.producer if known else UNKNOWN_PRODUCER, []).append(each.dead_letter.record.offset)
    numbers, last = Counter(producer for producer, _ in valid), dict(valid)
    numbers[UNKNOWN_PRODUCER] = len(valid)
    if valid:
        last[UNKNOWN_PRODUCER] = valid[-1][1]
    return {
        producer: Tally(len(offsets), numbers[producer], sum(offset > last.get(producer, -1) for offset in offsets))
        for producer, offsets in dead.items()
    }


def retried(record: FetchedRecord) -> int | None:
    """Return the id of the first dead letter of a record that was sent again, else None."""
    if not any(name == RETRY_OF_HEADER for name, _ in record.headers):
        return None
    return retry_of(_header_texts(record))[0]


async def _settle(work: UnitOfWork, intake: Intake[Any]) -> None:
    dead = {dead_letter.record.offset for dead_letter in intake.dead}
    firsts = {retried(item.record) for item in intake.accepted if item.offset not in dead} - {None}
    if firsts:
        await DeadLetterRepository(work).settle([first for first in firsts if first is not None])
        log.info("dead_letters_resolved", dead_letters=len(firsts))


async def _write(work: UnitOfWork, batch: LedgerBatch, kept: list[_Kept]) -> None:
    repository, key = DeadLetterRepository(work), batch.topic.name.encode()
    await repository.save([_row(batch, each) for each in kept])
    await repository.announce([(key, *announced(each.dead_letter.record.value or b"", each.headers)) for each in kept])
    reasons = Counter(str(each.dead_letter.reason) for each in kept)
    log.warning(
        "records_dead_lettered",
        topic=batch.topic.name,
        partition=batch.partition,
        from_offset=batch.from_offset,
        reasons=dict(reasons),
        producers=dict(Counter(each.producer for each in kept)),
    )
    for reason, number in reasons.items():
        METRICS.streams_dead_letters.labels(topic=batch.topic.name, reason=reason).inc(number)


def _row(batch: LedgerBatch, kept: _Kept) -> DeadLetterRow:
    record = kept.dead_letter.record
    first, attempts = retry_of(kept.headers)
    return DeadLetterRow(
        topic=batch.topic.name,
        generation=batch.topic.generation,
        partition=batch.partition,
        offset=record.offset,
        key=record.key,
        reason=kept.dead_letter.reason,
        detail=storable(kept.dead_letter.detail),
        raw=record.value or b"",
        record_at=record_time(record),
        producer=kept.producer,
        attempts=attempts,
        retry_of=first,
    )


def _headers(batch: LedgerBatch, dead_letter: DeadLetter) -> dict[str, str]:
    source = dead_letter.record
    record = Record(
        topic=batch.topic.name, partition=batch.partition, offset=source.offset, key=source.key, value=source.value or b"",
        timestamp=record_time(source), headers=_header_texts(source),
    )  # fmt: skip
    return dead_letter_headers(record, dead_letter.reason, dead_letter.detail)


def _header_texts(record: FetchedRecord) -> Mapping[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in record.headers}
