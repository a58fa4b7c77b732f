"""Builds a validated event from loose fields, and the bytes on the wire from an event. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from fincoach_events.buffer import OutgoingEvent
from fincoach_events.errors import EventTooLargeError, InvalidEventError
from fincoach_events.events import (
    EVENT_TYPES,
    MAX_EVENT_BYTES,
    MAX_STRING_CHARACTERS,
    AnyBehavioralEvent,
    BehavioralEvent,
    decode_event,
    encode_event,
    without_sensitive_keys,
)
from fincoach_events.identifiers import event_id_from_key, new_event_id

# The values of ``event_type`` on the wire, and the struct of each.
EVENT_CLASSES: dict[str, type[BehavioralEvent]] = {
    str(event_class.__struct_config__.tag): event_class for event_class in EVENT_TYPES
}
_FIELD_NAMES = {name: frozenset(event_class.__struct_fields__) for name, event_class in EVENT_CLASSES.items()}


def build_event(event_type: str, fields: Mapping[str, Any]) -> AnyBehavioralEvent:
    """Return the event of type ``event_type`` that ``fields`` describe.

    Fields that are None count as absent. Strings longer than 1,000 characters are cut, and sensitive keys are
    dropped at any depth. A name that the type does not have is refused, because a misspelt optional field
    would otherwise be lost silently.

    Raises:
        InvalidEventError: ``unknown_type``, ``missing_field`` or ``invalid_field``.
    """
    names = _FIELD_NAMES.get(event_type)
    if names is None:
        raise InvalidEventError(
            "unknown_type", f"{event_type!r} is none of {', '.join(EVENT_CLASSES)}", field="event_type"
        )
    given = {name: value for name, value in fields.items() if value is not None}
    declared = {name: _cut(value) for name, value in given.items() if name in names}
    _refuse_unknown(event_type, given.keys() - names)
    try:
        return cast("AnyBehavioralEvent", msgspec.convert(declared, EVENT_CLASSES[event_type]))
    except msgspec.ValidationError as error:
        reason = "missing_field" if "missing required field" in str(error) else "invalid_field"
        raise InvalidEventError(reason, str(error)) from error


def cleaned_event(event: AnyBehavioralEvent) -> AnyBehavioralEvent:
    """Return ``event`` validated, without sensitive keys and with its strings cut.

    Constructors of structs do not validate, so an event from a constructor may be invalid.

    Raises:
        InvalidEventError: as :func:`build_event` does.
    """
    return build_event(
        str(event.__struct_config__.tag), {name: getattr(event, name) for name in event.__struct_fields__}
    )


def encode_within_limit(event: AnyBehavioralEvent, *, limit_bytes: int = MAX_EVENT_BYTES) -> bytes:
    """Return the event as it goes onto the topic; it is decoded once, so no receiver will refuse it.

    Raises:
        InvalidEventError: its free-form part holds a value that JSON cannot represent.
        EventTooLargeError: it has more than ``limit_bytes`` bytes.
    """
    try:
        raw = encode_event(event)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidEventError("invalid_field", str(error), field="additional_data") from error
    if len(raw) > limit_bytes:
        raise EventTooLargeError(len(raw), limit_bytes)
    decode_event(raw)
    return raw


def topic_key(event: BehavioralEvent) -> bytes:
    """Return the topic key of ``event``: its user, which keeps one user's events in order."""
    return str(event.user_id).encode()


class EventFactory:
    """Fills an event's envelope from the host's defaults; holds no connection, so any thread may use it."""

    def __init__(self, *, consent_default: bool, source: str, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        if not isinstance(consent_default, bool):
            raise TypeError("consent_default must be True or False: may events train when a call does not say?")
        self._consent_default = consent_default
        self._source = source
        self._max_event_bytes = max_event_bytes

    def draft(
        self, event_type: str, fields: Mapping[str, Any], *, idempotency_key: str | None, consent: bool | None
    ) -> AnyBehavioralEvent:
        """Return a validated event with id, consent and source; an empty idempotency key is no key.

        Raises:
            InvalidEventError: as :func:`build_event` does.
        """
        envelope = {
            "event_id": event_id_from_key(idempotency_key) if idempotency_key else new_event_id(),
            "consent": self._consent_default if consent is None else consent,
            "source": self._source,
        }
        return build_event(event_type, envelope | dict(fields))

    def outgoing(self, event: AnyBehavioralEvent) -> OutgoingEvent:
        """Return a validated event as it goes onto the topic. Raises as :func:`encode_within_limit` does."""
        value = encode_within_limit(event, limit_bytes=self._max_event_bytes)
        return OutgoingEvent(value=value, key=topic_key(event), event_id=event.event_id, event=event)


def _cut(value: Any) -> Any:  # noqa: ANN401 - whatever the host passes
    if isinstance(value, str):
        return value[:MAX_STRING_CHARACTERS]
    if isinstance(value, Mapping):
        return without_sensitive_keys({str(name): item for name, item in value.items()})
    return value


def _refuse_unknown(event_type: str, names: set[str]) -> None:
    """Refuse names that the type lacks; sensitive names are ignored, since they never leave the host."""
    unknown = sorted(without_sensitive_keys(dict.fromkeys(names)))
    if unknown:
        raise InvalidEventError(
            "invalid_field", f"{event_type} has no field {', '.join(unknown)}; use additional_data", field=unknown[0]
        )
