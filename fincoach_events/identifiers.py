"""Event identifiers: derived from the caller's idempotency key, else time-ordered."""

from __future__ import annotations

import os
import time
import uuid

_IDEMPOTENCY_NAMESPACE = uuid.UUID("6f1d7c5e-3a0e-5d0b-9d55-0f6f5b1f7a11")
_USER_NAMESPACE = uuid.UUID("b1c1f6f2-5f0c-5a53-8f0e-2f8f5f0d9c21")


def new_event_id() -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    value = (
        (milliseconds & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (tail >> 68 & 0xFFF) << 64
        | 0b10 << 62
        | tail & (1 << 62) - 1
    )
    return uuid.UUID(int=value)


def event_id_from_key(idempotency_key: str) -> uuid.UUID:
    """Return the identifier of a key: a retried request with the same key yields one event."""
    return uuid.uuid5(_IDEMPOTENCY_NAMESPACE, idempotency_key)


def user_id_from_name(namespace: str, name: str) -> uuid.UUID:
    """Return the UUIDv5 of a user of a foreign data set; it is the same in every replay."""
    return uuid.uuid5(_USER_NAMESPACE, f"{namespace}:{name}")
