"""What services see of a broker: records, positions, and where dead letters go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as it was read. ``timestamp`` is the broker's append time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    timestamp: dt.datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a consumer is behind on one partition."""

    topic: str
    partition: int
    position: int
    end: int

    @property
    def records(self) -> int:
        """Return how many records wait."""
        return max(self.end - self.position, 0)


# (topic, key, value, headers); a value of None is a tombstone.
OutgoingRecord = tuple[str, bytes | None, bytes | None, Mapping[str, str]]
# Handles one record. Raise InvalidMessageError to dead-letter it, RetryLaterError to see it again; anything else is a bug.
Handler = Callable[[Record], Awaitable[None]]
# Keeps a record that cannot be handled: (record, reason, detail). Must not return before it is durable.
DeadLetterSink = Callable[[Record, str, str], Awaitable[None]]
