"""A small memory of values that may be a moment old. Pure: the caller brings the time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """Holds at most ``size`` values, each for ``ttl_seconds``; the oldest entry is dropped first."""

    def __init__(self, *, size: int, ttl_seconds: float) -> None:
        self._size = size
        self._ttl_seconds = ttl_seconds
        self._entries: dict[Key, tuple[float, Value]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, *, now: float) -> Value | None:
        """Return the value of ``key``, or None when there is none or it is too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry[0]:
            del self._entries[key]
            return None
        return entry[1]

    def put(self, key: Key, value: Value, *, now: float) -> None:
        """Hold ``value`` until its time is over or newer values replace it."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (now + self._ttl_seconds, value)
