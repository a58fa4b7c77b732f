"""Decodes and encodes messages. Only this module handles their versions.

For any bytes, :func:`decode` returns a message that can be stored or raises ``InvalidMessageError``. Any other error would
stop the consumer again and again.

Two versions of a message coexist for weeks: topics and archives hold the old one, and hosts and processes are upgraded one
after the other. An older version is upcast step by step; a step that only added optional fields needs no upcaster. A newer
version is read as ours if it has all fields that we require; unknown fields are ignored. Otherwise it becomes a dead
letter with reason ``unknown_version``, to be retried after the upgrade.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from fincoach_events.events import AnyBehavioralEvent, BehavioralEvent
from schemas.errors import InvalidMessageError
from schemas.messages.envelope import Message
from schemas.topics import BEHAVIORAL_EVENTS, TOPICS, Topic
from schemas.vocabulary import DeadLetterReason

AnyMessage = Message | BehavioralEvent
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

# The escape of U+0000, not of a backslash before "u0000". PostgreSQL stores it neither in text nor in jsonb.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_encoder = msgspec.json.Encoder()


class _Head(msgspec.Struct):
    type: str
    schema_version: int = 1


class _EventHead(_Head):
    type: str = msgspec.field(name="event_type")


_head_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "type": msgspec.json.Decoder(_Head),
    "event_type": msgspec.json.Decoder(_EventHead),
}


def tag_of(message: type[msgspec.Struct]) -> str:
    """Return the name of a message type on the wire."""
    return str(message.__struct_config__.tag)


def version_of(message: type[msgspec.Struct]) -> int:
    """Return the version in which messages of this type are written: the default of their ``schema_version``."""
    (field,) = (field for field in msgspec.structs.fields(message) if field.name == "schema_version")
    factory: Any = field.default_factory
    return int(field.default if factory is msgspec.NODEFAULT else factory())


# (type on the wire, from version) -> the same message one version later.
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
CURRENT_VERSIONS: dict[str, int] = {
    tag_of(message): version_of(message) for topic in TOPICS.values() for message in topic.messages
}


class MessageReader:
    """Reads the messages of one topic in any version."""

    def __init__(
        self, topic: Topic, versions: Mapping[str, int], upcasters: Mapping[tuple[str, int], Upcaster]
    ) -> None:
        self._topic = topic
        self._versions = versions
        self._upcasters = upcasters
        self._known = {tag_of(message) for message in topic.messages}
        self._current = {message: versions.get(tag_of(message), 1) for message in topic.messages}
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(topic.union)
        self._head_decoder = _head_decoders[topic.tag_field]

    def read(self, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
        """Return the message in ``raw`` in its current version.

        Raises:
            InvalidMessageError: with the reason for the dead letter.
        """
        try:
            return _storable(self._read(raw), raw)
        except msgspec.ValidationError as error:
            raise InvalidMessageError(_reason(str(error)), str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidMessageError(DeadLetterReason.NOT_JSON, str(error)) from error
        except RecursionError as error:
            raise InvalidMessageError(DeadLetterReason.NOT_JSON, "the message is nested too deeply") from error

    def _read(self, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
        try:
            message = self._decoder.decode(raw)
        except msgspec.ValidationError:
            return self._read_by_head(raw)
        if message.schema_version == self._current[type(message)]:
            return message
        return self._read_by_head(raw)

    def _read_by_head(self, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
        head = self._head_decoder.decode(raw)
        if head.type not in self._known:
            detail = f"{self._topic.name} has no messages of type {head.type!r}"
            raise InvalidMessageError(DeadLetterReason.UNKNOWN_TYPE, detail)
        current = self._versions.get(head.type, 1)
        if head.schema_version < 1:
            detail = f"{head.type} has versions 1 to {current}, not {head.schema_version}"
            raise InvalidMessageError(DeadLetterReason.UNKNOWN_VERSION, detail)
        if head.schema_version > current:
            return self._read_newer(head, raw, current)
        if head.schema_version == current:
            return self._decoder.decode(raw)
        return msgspec.convert(self._upcast(head, msgspec.json.decode(raw), current), self._topic.union)

    def _read_newer(self, head: _Head, raw: bytes, current: int) -> Any:  # noqa: ANN401 - the topic's own union
        try:
            return msgspec.structs.replace(self._decoder.decode(raw), schema_version=current)
        except msgspec.ValidationError as error:
            detail = (
                f"{head.type} version {head.schema_version} is newer than {current} and cannot be read as that: {error}"
            )
            raise InvalidMessageError(DeadLetterReason.UNKNOWN_VERSION, detail) from error

    def _upcast(self, head: _Head, document: dict[str, Any], current: int) -> dict[str, Any]:
        try:
            for version in range(head.schema_version, current):
                upcast = self._upcasters.get((head.type, version))
                document = upcast(document) if upcast else document
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            detail = f"{head.type} version {head.schema_version} could not be upcast: {error!r}"
            raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, detail) from error
        return {**document, "schema_version": current}


_readers = {
    topic.name: MessageReader(topic, CURRENT_VERSIONS, UPCASTERS) for topic in TOPICS.values() if topic.messages
}
_read_event = _readers[BEHAVIORAL_EVENTS.name].read


def encode(message: AnyMessage) -> bytes:
    """Return ``message`` as JSON."""
    return _encoder.encode(message)


def decode(topic: Topic, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
    """Return the message in ``raw``, brought to its current version.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    return _readers[topic.name].read(raw)


def decode_behavioral_event(raw: bytes) -> AnyBehavioralEvent:
    """Return the behavioural event in ``raw``.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    event: AnyBehavioralEvent = _read_event(raw)
    return event


def _storable(message: AnyMessage, raw: bytes) -> AnyMessage:
    """Return ``message``; reject valid JSON that the database cannot store."""
    # Most messages hold no backslash, and looking for one takes a tenth of the time.
    if b"\\" in raw and b"\\u0000" in raw and _NUL.search(raw):
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, "text contains the character U+0000")
    try:
        if message.occurred_at.tzinfo is not dt.UTC:
            message.occurred_at.astimezone(dt.UTC)
    except OverflowError as error:
        raise InvalidMessageError(
            DeadLetterReason.INVALID_FIELD, "occurred_at is outside the calendar in UTC"
        ) from error
    return message


def _reason(message: str) -> str:
    return DeadLetterReason.MISSING_FIELD if "missing required field" in message else DeadLetterReason.INVALID_FIELD
