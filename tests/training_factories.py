"""What the tests of trainers use: an archive filled as streams would fill it, a trainer's parts, small histories."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from backends.clock import SystemClock
from backends.database.engine import create_engine
from backends.database.unit_of_work import Database
from fincoach_events.events import AnyBehavioralEvent, TransactionCreated, encode_event
from fincoach_events.identifiers import event_id_from_key, user_id_from_name
from modelkit.training.interface import EVENTS_FILE, FEEDBACK_FILE, Snapshot
from modelkit.training.snapshot_files import EVENT_SCHEMA, FEEDBACK_SCHEMA, ORDER, parquet_bytes
from schemas.messages.envelope import OffsetRange
from schemas.messages.training import ThresholdReached
from schemas.tables import behavioral_events, epochs, ledger, threshold_evaluations, training_datasets
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import ModelType, Service
from tests.four_models import FOUR_MODELS
from trainers.running.queue import TrainingQueue
from trainers.settings import TrainersSettings
from trainers.snapshots.decisions import clean

FIRST_DAY = dt.datetime(2025, 1, 6, tzinfo=dt.UTC)
TOPIC = BEHAVIORAL_EVENTS.name


def database_of(url: str, service: Service = Service.TRAINERS) -> Database:
    """Return a service's database; close it."""
    return Database(create_engine(url, application_name="test"), service)


def settings_of(url: str, folder: Path, **changed: object) -> TrainersSettings:
    """Return settings with short times."""
    quick = {
        "training_retry_seconds": 0.05,
        "training_lease_seconds": 4.0,
        "training_grace_seconds": 2.0,
        "training_poll_seconds": 0.05,
    }
    return TrainersSettings.model_validate({"database_url": url, "folder": folder, **quick, **changed})


def queue_of(database: Database, settings: TrainersSettings, owner: str = "trainer-a") -> TrainingQueue:
    """Return a trainer's view of the queue."""
    return TrainingQueue(database, SystemClock(), settings, owner=owner, models=FOUR_MODELS)


def span(to_offset: int, *, from_offset: int = 0, partition: int = 0) -> OffsetRange:
    """Return a range of behavioural events."""
    return OffsetRange(topic=TOPIC, generation=1, partition=partition, from_offset=from_offset, to_offset=to_offset)


def crossing(
    model_type: ModelType = "spending", epoch: int = 1, ranges: Iterable[OffsetRange] = ()
) -> ThresholdReached:
    """Return a crossing, the same for the same arguments."""
    return ThresholdReached(
        event_id=event_id_from_key(f"{model_type}/{epoch}"), occurred_at=FIRST_DAY, model_type=model_type, epoch=epoch,
        training_dataset_id=uuid.UUID(int=1), evaluation_id=uuid.UUID(int=2), counted=1000, threshold=1000, quality_score=0.9,
        quality={}, ranges=tuple(ranges),
    )  # fmt: skip


def transaction(user: str, day: float, amount_minor: int, **changed: object) -> TransactionCreated:
    """Return a debit of a user on a day after ``FIRST_DAY``."""
    fields: dict[str, object] = {
        "event_id": event_id_from_key(f"{user}/{day}/{amount_minor}"), "user_id": user_id_from_name("test", user),
        "occurred_at": FIRST_DAY + dt.timedelta(days=day), "consent": True, "source": "replay:test", "amount_minor": amount_minor,
        "currency": "USD", "category": "shopping", "transaction_type": "debit",
    }  # fmt: skip
    return TransactionCreated(**{**fields, **changed})  # type: ignore[arg-type]


def shop_history(*, users: int, weeks: int, seed: int = 0) -> list[TransactionCreated]:
    """Return purchases by time; each customer comes at a rate, and spends around an amount, of its own."""
    generator = np.random.default_rng(seed)
    rates, levels = generator.gamma(2.0, 0.2, users), generator.lognormal(3.0, 0.6, users)
    events = []
    for user in range(users):
        for day in np.flatnonzero(generator.random(weeks * 7) < rates[user] / 3.5):
            amount = max(1, round(100 * levels[user] * generator.lognormal(0.0, 0.4)))
            events.append(transaction(f"user-{user}", float(day) + 0.5, amount))
    return sorted(events, key=lambda event: (event.occurred_at, event.event_id))


async def archive(
    database: Database, events: Sequence[AnyBehavioralEvent], *, partitions: int = 2, start: int = 0
) -> list[OffsetRange]:
    """Archive ``events`` as streams would, users spread over ``partitions``; return the ranges that were written."""
    placed: dict[int, list[AnyBehavioralEvent]] = {number: [] for number in range(partitions)}
    for event in events:
        placed[event.user_id.int % partitions].append(event)
    rows = [
        {
            "event_id": event.event_id, "occurred_at": event.occurred_at, "user_id": event.user_id, "event_type": event.__struct_config__.tag,
            "interaction_type": event.interaction_type, "consent": event.consent, "source": event.source, "generation": 1,
            "partition": partition, "offset": start + offset, "payload": _json_of(event),
        }
        for partition, members in placed.items() for offset, event in enumerate(members)
    ]  # fmt: skip
    async with database.transaction() as work:
        for first in range(0, len(rows), 2_000):
            await work.connection.execute(behavioral_events.insert(), rows[first : first + 2_000])
        for partition, members in placed.items():
            row = {"topic": TOPIC, "generation": 1, "partition": partition, "next_offset": start + len(members)}
            await work.connection.execute(
                sa.delete(ledger).where(ledger.c.topic == TOPIC, ledger.c.partition == partition)
            )
            await work.connection.execute(ledger.insert().values(**row))
    return [
        span(start + len(members), from_offset=start, partition=partition)
        for partition, members in placed.items()
        if members
    ]


def _json_of(event: AnyBehavioralEvent) -> object:
    return msgspec.json.decode(encode_event(event))


async def record_epoch(database: Database, message: ThresholdReached) -> None:
    """Store the rows that streams commits together with a crossing."""
    dataset_type, epoch = training_datasets.c.dataset_type, training_datasets.c.epoch
    async with database.transaction() as work:
        closed = insert(training_datasets).values(
            dataset_type=message.model_type, epoch=message.epoch, threshold=1, closed_at=sa.func.now()
        )
        dataset = await work.connection.scalar(
            closed.on_conflict_do_update(
                index_elements=[dataset_type, epoch], set_={"closed_at": sa.func.now()}
            ).returning(training_datasets.c.id)
        )
        evaluation = await work.connection.scalar(
            threshold_evaluations.insert().values(
                model_type=message.model_type, epoch=message.epoch, decision="fired", counted=message.counted, effective_count=1.0,
                threshold=message.threshold, factors={}, sentence="",
            ).returning(threshold_evaluations.c.id)
        )  # fmt: skip
        await work.connection.execute(epochs.insert().values(
            model_type=message.model_type, epoch=message.epoch, training_dataset_id=dataset, evaluation_id=evaluation,
            event_id=message.event_id, counted=message.counted, threshold=message.threshold, quality_score=0.9,
            ranges=[{name: getattr(item, name) for name in item.__struct_fields__} for item in message.ranges],
        ))  # fmt: skip


async def record_quarantine(
    database: Database, ranges: Iterable[OffsetRange], *, epoch: int, model_type: ModelType = "spending"
) -> None:
    """Store the row that streams keeps of a quarantined data set."""
    row = {
        "dataset_type": model_type, "epoch": epoch, "threshold": 1, "closed_at": sa.func.now(), "review": "quarantined",
        "reviewed_by": "alice", "review_reason": "a bot", "quarantined_ranges": msgspec.to_builtins(list(ranges)),
    }  # fmt: skip
    async with database.transaction() as work:
        added = insert(training_datasets).values(row)
        await work.connection.execute(
            added.on_conflict_do_update(index_elements=["dataset_type", "epoch"], set_=row)
        )  # fmt: skip


def snapshot_of(events: Iterable[AnyBehavioralEvent], *, new_from: int = 0, partitions: int = 2) -> Snapshot:
    """Return a snapshot of ``events`` as it would come out of an archive; the events from number ``new_from`` on are new."""
    files = snapshot_files(events, new_from=new_from, partitions=partitions)
    return Snapshot(files, digest="0" * 64)


def snapshot_files(events: Iterable[AnyBehavioralEvent], *, new_from: int = 0, partitions: int = 2) -> dict[str, bytes]:
    """Return the files of that snapshot."""
    rows = [
        {
            "user_id": event.user_id.bytes, "occurred_at": event.occurred_at, "event_type": event.__struct_config__.tag,
            "interaction_type": event.interaction_type, "source": event.source, "generation": 1,
            "partition": event.user_id.int % partitions, "offset": number, "is_new": number >= new_from, "payload": encode_event(event),
        }
        for number, event in enumerate(events)
    ]  # fmt: skip
    cleaned = clean(pa.Table.from_pylist(rows, EVENT_SCHEMA).sort_by(ORDER), FEEDBACK_SCHEMA.empty_table())
    return {EVENTS_FILE: parquet_bytes(cleaned.events), FEEDBACK_FILE: parquet_bytes(cleaned.feedback)}
