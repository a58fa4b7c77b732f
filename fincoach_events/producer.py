"""The interface of a host: :class:`EventProducer`, for asyncio.

Example::

    async with EventProducer("kafka:9092", consent_default=False) as producer:
        await producer.record(
            "transaction_creation",
            user_id=user.id,
            occurred_at=transaction.created_at,
            idempotency_key=f"transaction:{transaction.id}",
            consent=user.allows_training,
            amount_minor=1299,
            currency="EUR",
            category="groceries",
            transaction_type="debit",
        )

A call never waits for the broker: the event goes into a bounded buffer, and a background task delivers it. A
call blocks only while the buffer is full, at most for ``max_block_seconds``. Hosts without asyncio use
:class:`fincoach_events.sync_producer.SyncEventProducer`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from fincoach_events.accounts import (
    AcknowledgedCallback,
    Acknowledgement,
    DeliveryAccount,
    UndeliveredCallback,
    event_name,
)
from fincoach_events.buffer import EventBuffer, OutgoingEvent, Slot
from fincoach_events.delivery import DeliveryService, ProducerSettings
from fincoach_events.drafts import EventFactory, cleaned_event
from fincoach_events.errors import EventTooLargeError, ProducerClosedError, UndeliveredEventsError
from fincoach_events.events import AnyBehavioralEvent

DEFAULT_SETTINGS = ProducerSettings()


class EventProducer:
    """Sends behavioural events to FinCoach Continuous Learning.

    An event is accepted when its call returns. It is then either acknowledged by the broker or reported
    as undelivered, exactly once. Calls return within ``max_block_seconds`` plus the time to encode. Memory is
    bounded. A repeated call with the same idempotency key yields the same event.

    Args:
        bootstrap_servers: Kafka addresses, separated by commas.
        consent_default: may events train when a call does not say? There is no silent default: the host's
            legal basis decides.
        source: the ``source`` of every event.
        settings: limits and times.
        on_undelivered: called with an event that was given up, and the reason.
        on_acknowledged: called with the event, partition and offset. Both run on the event loop and must not block.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        consent_default: bool,
        source: str = "host",
        settings: ProducerSettings = DEFAULT_SETTINGS,
        on_undelivered: UndeliveredCallback | None = None,
        on_acknowledged: AcknowledgedCallback | None = None,
    ) -> None:
        self._factory = EventFactory(
            consent_default=consent_default, source=source, max_event_bytes=settings.max_event_bytes
        )
        self._settings = settings
        self._buffer = EventBuffer(max_events=settings.max_buffered_events, max_bytes=settings.max_buffered_bytes)
        self._account = DeliveryAccount(on_acknowledged=on_acknowledged, on_undelivered=on_undelivered)
        self._delivery = DeliveryService(bootstrap_servers, self._buffer, settings=settings, listener=self._account)
        self._running = False
        self._accepted = 0

    @property
    def accepted(self) -> int:
        """Return how many events were accepted."""
        return self._accepted

    @property
    def acknowledged(self) -> int:
        """Return how many accepted events the broker has acknowledged."""
        return self._account.acknowledged_events

    @property
    def undelivered(self) -> int:
        """Return how many accepted events were given up."""
        return self._account.undelivered_events

    @property
    def pending(self) -> int:
        """Return how many accepted events are neither acknowledged nor given up."""
        return len(self._buffer)

    async def start(self) -> None:
        """Start delivering; returns at once, even while no broker answers (events wait in the buffer)."""
        if not self._running:
            self._running = True
            self._delivery.start()

    async def record(
        self,
        event_type: str,
        *,
        user_id: UUID | str,
        occurred_at: dt.datetime,
        idempotency_key: str | None = None,
        consent: bool | None = None,
        **fields: Any,  # noqa: ANN401 - the fields of the event type, checked below
    ) -> UUID:
        """Validate and accept one event; return its id.

        Args:
            event_type: ``page_view``, ``recommendation_interaction``, ``purchase``, ``goal_modification`` or
                ``transaction_creation``.
            user_id: the user that the event is about; also the topic key.
            occurred_at: when it happened (aware). There is no default: a retried request must give the same time.
            idempotency_key: unique in the host, for example ``transaction:<id>``; repeated calls with it yield
                one event. Without it each call yields a new event.
            consent: may this event train? None takes the host's default.
            **fields: the type's own fields, see :mod:`fincoach_events.events`.

        Raises:
            InvalidEventError: the event breaks its contract; nothing was accepted.
            ProducerBusyError: the buffer stayed full for ``max_block_seconds``; nothing was accepted.
            ProducerClosedError: the producer is not running.
        """
        event = self._factory.draft(
            event_type,
            {**fields, "user_id": user_id, "occurred_at": occurred_at},
            idempotency_key=idempotency_key,
            consent=consent,
        )
        return await self._accept_event(event)

    async def send(self, event: AnyBehavioralEvent) -> UUID:
        """Validate and accept a ready event; return its id. Raises as :meth:`record` does."""
        return await self._accept_event(cleaned_event(event))

    async def deliver(self, event: AnyBehavioralEvent) -> Acknowledgement:
        """Accept an event and wait until the broker has it, at most for the delivery timeout.

        Raises:
            UndeliveredEventsError: it was given up.
        """
        slot = await self._accept(self._factory.outgoing(cleaned_event(event)))
        with self._delivery.without_lingering():
            return await self._account.wait_for(slot)

    async def send_bytes(self, value: bytes, *, key: bytes | None, event_id: UUID | None = None) -> None:
        """Accept foreign bytes as they are; only ``max_event_bytes`` is checked.

        For replays and repairs only: the receiver validates the bytes.
        """
        if len(value) > self._settings.max_event_bytes:
            raise EventTooLargeError(len(value), self._settings.max_event_bytes)
        await self._accept(OutgoingEvent(value=value, key=key, event_id=event_id))

    async def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until every event accepted so far is acknowledged, at most ``timeout_seconds``.

        None waits for the delivery timeout. Delivery goes on trying the events that are not acknowledged then.

        Raises:
            UndeliveredEventsError: an event was not acknowledged in time, or was given up since the last flush.
        """
        before = list(self._buffer.unsettled())
        try:
            with self._delivery.without_lingering():
                async with asyncio.timeout(
                    self._settings.delivery_timeout_seconds if timeout_seconds is None else timeout_seconds
                ):
                    await self._buffer.wait_until_settled()
        except TimeoutError:
            late = tuple(event_name(slot.outgoing) for slot in before if not slot.settled)
            raise UndeliveredEventsError(self._account.take_failures() + late) from None
        if failures := self._account.take_failures():
            raise UndeliveredEventsError(failures)

    async def close(self, timeout_seconds: float | None = None) -> None:
        """Accept no more events, flush, disconnect. May be called twice.

        Args:
            timeout_seconds: longest wait for the broker; None takes the request timeout.

        Raises:
            UndeliveredEventsError: events were not acknowledged in time; raised when everything is closed. They
                were also reported through ``on_undelivered``.
        """
        if not self._running:
            return
        self._running = False
        try:
            await self.flush(self._settings.request_timeout_seconds if timeout_seconds is None else timeout_seconds)
        finally:
            await self._delivery.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _accept_event(self, event: AnyBehavioralEvent) -> UUID:
        await self._accept(self._factory.outgoing(event))
        return event.event_id

    async def _accept(self, outgoing: OutgoingEvent) -> Slot:
        self._check_running()
        slot = await self._buffer.put(outgoing, timeout_seconds=self._settings.max_block_seconds)
        try:
            self._check_running()  # the producer may have been closed while the call waited for room
        except ProducerClosedError:
            self._buffer.settle(slot)
            raise
        self._accepted += 1
        return slot

    def _check_running(self) -> None:
        if not self._running:
            raise ProducerClosedError(
                "this producer is not running: call start() first, or build a new one after close()"
            )
