"""Sends events to the topic with our own producer, before a measurement begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from benchmarks.services import BenchmarkError, Services
from fincoach_events import EventProducer, OutgoingEvent, ProducerSettings
from fincoach_events.events import AnyBehavioralEvent, encode_event

_FLUSH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """The contents of the topic.

    Attributes:
        records: number of records, repeated events included.
        events: number of distinct events.
        last_ids: the identifier of the last event of each partition; when these are processed, everything is.
    """

    records: int
    events: int
    last_ids: tuple[UUID, ...]


async def preload(services: Services, events: Iterable[AnyBehavioralEvent]) -> Loaded:
    """Send the events to the topic; return when all are acknowledged.

    Raises:
        BenchmarkError: the broker did not acknowledge all of them.
    """
    last: dict[int, tuple[int, UUID]] = {}

    def note(event: OutgoingEvent, partition: int, offset: int) -> None:
        if event.event_id is not None and offset > last.get(partition, (-1, event.event_id))[0]:
            last[partition] = offset, event.event_id

    settings = ProducerSettings(max_block_seconds=_FLUSH_SECONDS)
    records, known = 0, set[UUID]()
    async with EventProducer(
        services.brokers, consent_default=True, source="bench", settings=settings, on_acknowledged=note
    ) as producer:
        for event in events:
            await producer.send_bytes(encode_event(event), key=str(event.user_id).encode(), event_id=event.event_id)
            records += 1
            known.add(event.event_id)
        await producer.flush(_FLUSH_SECONDS)
        if producer.acknowledged != records:
            raise BenchmarkError(f"the broker acknowledged {producer.acknowledged} of {records} events")
    return Loaded(records=records, events=len(known), last_ids=tuple(event_id for _, event_id in last.values()))
