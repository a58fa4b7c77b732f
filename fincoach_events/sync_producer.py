"""The same producer for hosts without asyncio: WSGI applications, threads, scripts."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from fincoach_events.accounts import AcknowledgedCallback, UndeliveredCallback
from fincoach_events.delivery import ProducerSettings
from fincoach_events.errors import ProducerClosedError
from fincoach_events.events import AnyBehavioralEvent
from fincoach_events.producer import DEFAULT_SETTINGS, EventProducer

Result = TypeVar("Result")
_STARTED_BEFORE_FORK = "this producer was started before the fork: build and start one in each worker, after the fork"


class SyncEventProducer:
    """An :class:`EventProducer` on its own thread; any thread may call any method.

    It promises the same as :class:`EventProducer`, above all the longest time of a call. Threads do not survive
    a fork: a preforking server starts the producer in each worker, after the fork. Callbacks run on the
    producer's thread.
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
        self._producer = EventProducer(
            bootstrap_servers,
            consent_default=consent_default,
            source=source,
            settings=settings,
            on_undelivered=on_undelivered,
            on_acknowledged=on_acknowledged,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process_id = 0

    @property
    def accepted(self) -> int:
        """Return how many events were accepted."""
        return self._producer.accepted

    @property
    def acknowledged(self) -> int:
        """Return how many accepted events the broker has acknowledged."""
        return self._producer.acknowledged

    @property
    def undelivered(self) -> int:
        """Return how many accepted events were given up."""
        return self._producer.undelivered

    @property
    def pending(self) -> int:
        """Return how many accepted events are neither acknowledged nor given up."""
        return self._producer.pending

    def start(self) -> None:
        """Start the thread and delivery; does not wait for a broker.

        Raises:
            ProducerClosedError: it was started before the fork; its thread belongs to the parent.
        """
        if self._loop is not None and self._process_id != os.getpid():
            raise ProducerClosedError(_STARTED_BEFORE_FORK)
        if self._loop is None:
            self._process_id = os.getpid()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="fincoach-events", daemon=True)
            self._thread.start()
            self._call(self._producer.start())

    def record(
        self,
        event_type: str,
        *,
        user_id: UUID | str,
        occurred_at: dt.datetime,
        idempotency_key: str | None = None,
        consent: bool | None = None,
        **fields: Any,  # noqa: ANN401 - the fields of the event type
    ) -> UUID:
        """Validate and accept one event; return its id. As :meth:`EventProducer.record`."""
        return self._call(
            self._producer.record(
                event_type,
                user_id=user_id,
                occurred_at=occurred_at,
                idempotency_key=idempotency_key,
                consent=consent,
                **fields,
            )
        )

    def send(self, event: AnyBehavioralEvent) -> UUID:
        """Validate and accept a ready event; return its id. As :meth:`EventProducer.send`."""
        return self._call(self._producer.send(event))

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until every event accepted so far is acknowledged. As :meth:`EventProducer.flush`."""
        self._call(self._producer.flush(timeout_seconds))

    def close(self, timeout_seconds: float | None = None) -> None:
        """Accept no more events, flush, end the thread. As :meth:`EventProducer.close`; may be called twice."""
        if self._loop is None or self._thread is None:
            return
        try:
            self._call(self._producer.close(timeout_seconds))
        finally:
            loop, self._loop = self._loop, None
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Coroutine[Any, Any, Result]) -> Result:
        if self._loop is None or self._process_id != os.getpid():
            call.close()
            raise ProducerClosedError(
                "this producer is not running: call start() first" if self._loop is None else _STARTED_BEFORE_FORK
            )
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
