"""Bytes to messages and back, in one place; older versions are upcast here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from fincoach_events.errors import InvalidEventError
from fincoach_events.events import AnyBehavioralEvent, BehavioralEvent, decode_event
from schemas.errors import InvalidMessageError
from schemas.messages.envelope import Message
from schemas.topics import TOPICS, Topic
from schemas.vocabulary import DeadLetterReason

AnyMessage = Message | BehavioralEvent
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

# (message type, from version) -> the same message one version later.
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
CURRENT_VERSIONS: dict[str, int] = {}

_encoder = msgspec.json.Encoder()


class _Head(msgspec.Struct):
    type: str
    schema_version: int = 1


_head_decoder = msgspec.json.Decoder(_Head)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    topic.name: msgspec.json.Decoder(topic.union)
    for topic in TOPICS.values()
    if topic.union is not None and topic.tag_field == "type"
}


def encode(message: AnyMessage) -> bytes:
    """Return ``message`` as JSON."""
    return _encoder.encode(message)


def decode(topic: Topic, raw: bytes) -> Any:  # noqa: ANN401 - the topic's own union
    """Return the message in ``raw``, upcast to its current version.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    if topic.tag_field == "event_type":
        return decode_behavioral_event(raw)
    try:
        head = _head_decoder.decode(raw)
        if head.schema_version == CURRENT_VERSIONS.get(head.type, 1):
            return _decoders[topic.name].decode(raw)
        return msgspec.convert(_upcast(head, msgspec.json.decode(raw)), topic.union)
    except msgspec.ValidationError as error:
        raise InvalidMessageError(_reason(str(error)), str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessageError(DeadLetterReason.NOT_JSON, str(error)) from error


def decode_behavioral_event(raw: bytes) -> AnyBehavioralEvent:
    """Return the behavioural event in ``raw``.

    Raises:
        InvalidMessageError: with the reason for the dead letter.
    """
    try:
        return decode_event(raw)
    except InvalidEventError as error:
        raise InvalidMessageError(error.reason, error.detail) from error


def _upcast(head: _Head, document: dict[str, Any]) -> dict[str, Any]:
    current = CURRENT_VERSIONS.get(head.type, 1)
    for version in range(head.schema_version, current):
        document = UPCASTERS[head.type, version](document)
    if head.schema_version > current:
        raise InvalidMessageError(
            DeadLetterReason.UNKNOWN_VERSION, f"{head.type} version {head.schema_version} is newer than {current}"
        )
    return {**document, "schema_version": current}


def _reason(message: str) -> str:
    if "Invalid value" in message and "`$.type`" in message:
        return DeadLetterReason.UNKNOWN_TYPE
    return DeadLetterReason.MISSING_FIELD if "missing required field" in message else DeadLetterReason.INVALID_FIELD
