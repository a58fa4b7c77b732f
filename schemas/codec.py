"""Bytes to messages and back, in one place; older versions are upcast here and nowhere else.

Whatever the bytes are, :func:`decode` returns a message that can be stored or raises ``InvalidMessageError``: a
message that made it raise anything else would stop its consumer again and again.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import msgspec

from fincoach_events.events import AnyBehavioralEvent, BehavioralEvent
from schemas.errors import InvalidMessageError
from schemas.messages.envelope import Message
from schemas.topics import BEHAVIORAL_EVENTS, TOPICS, Topic
from schemas.vocabulary import DeadLetterReason

AnyMessage = Message | BehavioralEvent
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

# (message type, from version) -> the same message one version later.
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
CURRENT_VERSIONS: dict[str, int] = {}

# The escape of U+0000, not of a backslash before "u0000". PostgreSQL stores it neither in text nor in jsonb.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_encoder = msgspec.json.Encoder()


class _Head(msgspec.Struct):
    type: str
    schema_version: int = 1


class _EventHead(_Head):
    type: str = msgspec.field(name="event_type")


_TYPED_TOPICS = [topic for topic in TOPICS.values() if topic.messages]
_head_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "type": msgspec.json.Decoder(_Head),
    "event_type": msgspec.json.Decoder(_EventHead),
}
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    topic.name: msgspec.json.Decoder(topic.union) for topic in _TYPED_TOPICS
}
_types = {topic.name: {message.__struct_config__.tag for message in topic.messages} for topic in _TYPED_TOPICS}


def encode(message: AnyMessage) -> bytes:
    """Return ``message`` as JSON."""
    return _encoder.encode(message)


def decode(topic: Topic, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
    """Return the message in ``raw``, upcast to its current version.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    try:
        return _storable(_decode(topic, raw), raw)
    except msgspec.ValidationError as error:
        raise InvalidMessageError(_reason(str(error)), str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessageError(DeadLetterReason.NOT_JSON, str(error)) from error
    except RecursionError as error:
        raise InvalidMessageError(DeadLetterReason.NOT_JSON, "the message is nested too deeply") from error


def decode_behavioral_event(raw: bytes) -> AnyBehavioralEvent:
    """Return the behavioural event in ``raw``.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    event: AnyBehavioralEvent = decode(BEHAVIORAL_EVENTS, raw)
    return event


def _decode(topic: Topic, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
    head = _head_decoders[topic.tag_field].decode(raw)
    if head.type not in _types[topic.name]:
        raise InvalidMessageError(DeadLetterReason.UNKNOWN_TYPE, f"{topic.name} has no messages of type {head.type!r}")
    if head.schema_version == CURRENT_VERSIONS.get(head.type, 1):
        return _decoders[topic.name].decode(raw)
    return msgspec.convert(_upcast(head, msgspec.json.decode(raw)), topic.union)


def _upcast(head: _Head, document: dict[str, Any]) -> dict[str, Any]:
    current = CURRENT_VERSIONS.get(head.type, 1)
    if not 1 <= head.schema_version <= current:
        known = f"{head.type} has versions 1 to {current}, not {head.schema_version}"
        raise InvalidMessageError(DeadLetterReason.UNKNOWN_VERSION, known)
    try:
        for version in range(head.schema_version, current):
            document = UPCASTERS[head.type, version](document)
    except (LookupError, TypeError, ValueError) as error:
        detail = f"{head.type} version {head.schema_version} could not be upcast: {error!r}"
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, detail) from error
    return {**document, "schema_version": current}


def _storable(message: AnyMessage, raw: bytes) -> AnyMessage:
    """Return ``message``; refuse what is valid JSON but has no place in a database."""
    if b"\\u0000" in raw and _NUL.search(raw):
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, "text contains the character U+0000")
    try:
        message.occurred_at.astimezone(dt.UTC)
    except OverflowError as error:
        raise InvalidMessageError(
            DeadLetterReason.INVALID_FIELD, "occurred_at is outside the calendar in UTC"
        ) from error
    return message


def _reason(message: str) -> str:
    return DeadLetterReason.MISSING_FIELD if "missing required field" in message else DeadLetterReason.INVALID_FIELD
