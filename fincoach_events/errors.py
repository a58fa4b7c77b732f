"""Errors that the client raises; each says what the caller can do next."""

from __future__ import annotations


class EventError(Exception):
    """Something is wrong with an event or with its delivery."""


class InvalidEventError(EventError):
    """An event breaks its contract; nothing was sent.

    Attributes:
        reason: machine-readable reason code (see ``REASONS``).
        field: the field at fault, where one is known.
    """

    def __init__(self, reason: str, detail: str, *, field: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field


class EventTooLargeError(InvalidEventError):
    """An encoded event is larger than the client's limit (1 MiB)."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__("too_large", f"the event has {size_bytes} bytes, the limit is {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class ProducerBusyError(EventError):
    """The producer's buffer stayed full for ``max_block_seconds``; the event was not accepted."""


class ProducerClosedError(EventError):
    """The producer was closed; start a new one."""


class UndeliveredEventsError(EventError):
    """The broker did not acknowledge some accepted events in time.

    Attributes:
        event_ids: identifiers of these events.
    """

    def __init__(self, event_ids: tuple[str, ...]) -> None:
        super().__init__(
            f"{len(event_ids)} events were not acknowledged by the broker; send them again with the same idempotency keys"
        )
        self.event_ids = event_ids
