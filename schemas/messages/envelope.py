"""The fields of every message, and the value types that several messages share."""

from __future__ import annotations

import datetime as dt
from typing import Annotated
from uuid import UUID

import msgspec

AwareDatetime = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """The envelope: identity, version, time and cause.

    ``correlation_id`` identifies the whole chain (for a training, the ``ThresholdReached`` or command that started
    it); ``causation_id`` identifies the message or row that directly caused this one.
    """

    event_id: UUID
    occurred_at: AwareDatetime
    schema_version: int = 1
    correlation_id: UUID | None = None
    causation_id: UUID | None = None


class OffsetRange(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Offsets ``from_offset`` (inclusive) to ``to_offset`` (exclusive) of one partition of one topic generation."""

    topic: str
    generation: int
    partition: int
    from_offset: int
    to_offset: int
