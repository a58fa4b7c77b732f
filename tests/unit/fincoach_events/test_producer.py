"""The producer's promises while no broker answers."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import subprocess
import sys
import time
from uuid import UUID

import pytest

import fincoach_events
from fincoach_events import (
    EventProducer,
    EventTooLargeError,
    InvalidEventError,
    OutgoingEvent,
    ProducerBusyError,
    ProducerClosedError,
    ProducerSettings,
    SyncEventProducer,
    UndeliveredEventsError,
)
from fincoach_events.accounts import DeliveryAccount
from fincoach_events.buffer import Slot
from stack.ports import free_port

USER = UUID(int=7)
NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
QUICK = ProducerSettings(
    max_block_seconds=0.1, max_buffered_events=5, request_timeout_seconds=1.0, delivery_timeout_seconds=60.0
)


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_port()}"


async def record(producer: EventProducer, number: int) -> UUID:
    """Record one page view."""
    return await producer.record("page_view", user_id=USER, occurred_at=NOON, idempotency_key=str(number), page_url="/")


async def test_a_web_request_is_never_held_longer_than_agreed(nobody: str) -> None:
    """A call returns within ``max_block_seconds``, even without a broker and with a full buffer."""
    async with asyncio.timeout(10):
        producer = EventProducer(nobody, consent_default=True, settings=QUICK)
        started = time.monotonic()
        await producer.start()
        for number in range(5):
            await record(producer, number)
        assert time.monotonic() - started < 0.1
        with pytest.raises(ProducerBusyError):
            await record(producer, 5)
        assert time.monotonic() - started < 0.5
        assert (producer.accepted, producer.pending) == (5, 5)
        with pytest.raises(UndeliveredEventsError):
            await producer.close(0.1)


async def test_what_is_not_delivered_at_the_end_is_reported_once_each(nobody: str) -> None:
    """Each event that is undelivered at ``close`` is reported exactly once."""
    lost: list[tuple[OutgoingEvent, str]] = []
    producer = EventProducer(
        nobody, consent_default=True, settings=QUICK, on_undelivered=lambda event, reason: lost.append((event, reason))
    )
    await producer.start()
    sent = [await record(producer, number) for number in range(3)]
    with pytest.raises(UndeliveredEventsError) as caught:
        await producer.close(0.1)
    assert caught.value.event_ids == tuple(map(str, sent))
    assert [event.event_id for event, _ in lost] == sent
    assert (producer.undelivered, producer.acknowledged, producer.pending) == (3, 0, 0)
    await producer.close()
    with pytest.raises(ProducerClosedError):
        await record(producer, 4)


async def test_old_events_are_given_up(nobody: str) -> None:
    """An event older than the delivery timeout is given up and frees its room."""
    settings = ProducerSettings(request_timeout_seconds=1.0, delivery_timeout_seconds=0.2)
    producer = EventProducer(nobody, consent_default=True, settings=settings)
    await producer.start()
    await record(producer, 1)
    with pytest.raises(UndeliveredEventsError):
        await producer.flush(5.0)
    assert (producer.undelivered, producer.pending) == (1, 0)
    await producer.flush(1.0)  # it was reported already
    await producer.close()


async def test_flush_leaves_late_events_in_the_buffer(nobody: str) -> None:
    """A flush that times out keeps the late events, which may still arrive."""
    producer = EventProducer(nobody, consent_default=True, settings=QUICK)
    await producer.start()
    identifier = await record(producer, 1)
    with pytest.raises(UndeliveredEventsError, match="1 events") as caught:
        await producer.flush(0.05)
    assert caught.value.event_ids == (str(identifier),)
    assert (producer.undelivered, producer.pending) == (0, 1)
    with pytest.raises(UndeliveredEventsError):
        await producer.close(0.05)


async def test_wrong_events_are_refused_before_they_take_room(nobody: str) -> None:
    """Invalid and oversized events are refused and take no room in the buffer."""
    settings = ProducerSettings(max_event_bytes=2_000, request_timeout_seconds=1.0)
    async with EventProducer(nobody, consent_default=True, settings=settings) as producer:
        with pytest.raises(InvalidEventError):
            await producer.record("page_view", user_id=USER, occurred_at=NOON)
        with pytest.raises(EventTooLargeError):
            await producer.record(
                "page_view",
                user_id=USER,
                occurred_at=NOON,
                page_url="/",
                additional_data={str(n): "x" * 900 for n in range(3)},
            )
        with pytest.raises(EventTooLargeError):
            await producer.send_bytes(b"x" * 2_001, key=None)
        assert (producer.accepted, producer.pending) == (0, 0)


async def test_a_producer_has_to_be_started(nobody: str) -> None:
    """A producer that was not started refuses events."""
    with pytest.raises(ProducerClosedError, match="start"):
        await record(EventProducer(nobody, consent_default=True), 1)


@pytest.mark.parametrize(
    "settings",
    [{"compression": "zstd"}, {"compression": "lz4"}, {"max_buffered_events": 0}, {"max_buffered_bytes": 10}],
)
def test_impossible_settings_are_refused(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing codec or a limit that no event fits is refused when the settings are made."""
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    with pytest.raises(ValueError, match=r"pip install|room"):
        ProducerSettings(**settings)  # type: ignore[arg-type] # one field at a time


def test_threads_get_the_same_promises(nobody: str) -> None:
    """The synchronous producer blocks no longer than agreed and reports each undelivered event."""
    lost: list[str] = []
    producer = SyncEventProducer(
        nobody, consent_default=False, settings=QUICK, on_undelivered=lambda _, reason: lost.append(reason)
    )
    with pytest.raises(ProducerClosedError):
        producer.record("page_view", user_id=USER, occurred_at=NOON, page_url="/")
    producer.start()
    producer.start()
    for number in range(5):
        producer.record("page_view", user_id=USER, occurred_at=NOON, page_url=f"/{number}")
    started = time.monotonic()
    with pytest.raises(ProducerBusyError):
        producer.record("page_view", user_id=USER, occurred_at=NOON, page_url="/6")
    assert time.monotonic() - started < 1
    assert (producer.accepted, producer.acknowledged, producer.pending) == (5, 0, 5)
    with pytest.raises(UndeliveredEventsError):
        producer.flush(0.05)
    with pytest.raises(UndeliveredEventsError):
        producer.close(0.05)
    producer.close()
    assert (len(lost), producer.undelivered) == (5, 5)


def test_a_forked_process_must_start_its_own(nobody: str) -> None:
    """A forked worker that uses its parent's producer gets an error instead of waiting for a thread that it lacks."""
    with SyncEventProducer(nobody, consent_default=True, settings=QUICK) as producer:
        producer._process_id = os.getpid() + 1  # what a forked worker sees
        for call in (
            producer.start,
            lambda: producer.record("page_view", user_id=USER, occurred_at=NOON, page_url="/"),
        ):
            with pytest.raises(ProducerClosedError, match="in each worker"):
                call()
        producer._process_id = os.getpid()


@pytest.mark.expects_errors("delivery_callback_failed callback=<built-in function divmod>")
def test_a_failing_callback_does_not_stop_the_account() -> None:
    """A failing callback of the host is logged and does not stop delivery."""
    account = DeliveryAccount(on_acknowledged=divmod, on_undelivered=None)  # type: ignore[arg-type] # fails when called
    slot = Slot(OutgoingEvent(value=b"", key=None, event_id=None), 0, 0, 0.0)
    account.acknowledged(slot, partition=0, offset=0)
    account.gave_up(slot, reason="late")
    assert (account.acknowledged_events, account.undelivered_events) == (1, 1)
    assert account.take_failures() == ("bytes without an id",)


def test_every_public_name_exists() -> None:
    """Each name in ``__all__`` can be imported; an unknown name raises AttributeError."""
    assert all(getattr(fincoach_events, name) is not None for name in fincoach_events.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = fincoach_events.nothing


def test_the_contract_alone_loads_no_kafka_client() -> None:
    """Importing the event types does not import aiokafka."""
    program = "import sys, fincoach_events.events; sys.exit('aiokafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_a_call_that_waits_for_room_fails_when_the_producer_is_closed(nobody: str) -> None:
    """A call that waits for room while the producer closes raises ProducerClosedError; its event was not accepted."""
    async with asyncio.timeout(10):
        producer = EventProducer(
            nobody, consent_default=True, settings=dataclasses.replace(QUICK, max_block_seconds=5.0)
        )
        await producer.start()
        for number in range(QUICK.max_buffered_events):
            await record(producer, number)
        waiting = asyncio.create_task(record(producer, -1))
        await asyncio.sleep(0.05)
        with pytest.raises(UndeliveredEventsError):
            await producer.close(0.05)
        with pytest.raises(ProducerClosedError):
            await waiting
        assert (producer.accepted, producer.pending, producer.undelivered) == (5, 0, 5)
