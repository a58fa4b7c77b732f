"""From fetched records to valid messages and dead letters: what a record must fulfil to be archived. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fincoach_events.events import MAX_EVENT_BYTES
from schemas.errors import InvalidMessageError
from schemas.vocabulary import DeadLetterReason

FUTURE_TOLERANCE_SECONDS = 300.0  # beyond the record's own append time
EARLIEST = dt.datetime(
    1970, 1, 1, tzinfo=dt.UTC
)  # before it nothing of ours happened; the database's own limit is near
# The database's text and JSON types hold no NUL; one such event would stop its partition for ever.
NUL_ESCAPE = b"\\u0000"
_EVENT_TYPE = re.compile(rb'"event_type"\s*:\s*"([a-z_]{1,50})"')
_PEEKED_BYTES = 65_536


class FetchedRecord(Protocol):
    """A record as the transport gives it. ``timestamp`` is the broker's append time in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """What stands beside key and value."""


class TimedMessage(Protocol):
    """What every archived message has."""

    @property
    def user_id(self) -> Any:  # noqa: ANN401 - a UUID; a property because messages are frozen
        """Whom it is about; also the record's key."""

    @property
    def occurred_at(self) -> dt.datetime:
        """When it happened."""


MessageT = TypeVar("MessageT", bound=TimedMessage)


class Accepted(NamedTuple, Generic[MessageT]):
    """A valid message, its JSON text, its offset and the record that held it."""

    message: MessageT
    text: str
    offset: int
    record: FetchedRecord


class DeadLetter(NamedTuple):
    """A record that cannot be archived, and why."""

    record: FetchedRecord
    reason: str
    detail: str

    @property
    def event_type(self) -> str | None:
        """The type that the raw bytes claim, so that its data sets carry the blame."""
        found = _EVENT_TYPE.search(self.record.value or b"", 0, _PEEKED_BYTES)
        return found.group(1).decode() if found else None


@dataclass(slots=True)
class Intake(Generic[MessageT]):
    """A batch after validation, both parts in the order of their offsets."""

    accepted: list[Accepted[MessageT]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


def take_in(records: Iterable[FetchedRecord], decode: Callable[[bytes], MessageT]) -> Intake[MessageT]:
    """Sort ``records`` into valid messages and dead letters; nothing is raised for a bad record."""
    intake: Intake[MessageT] = Intake()
    for record in records:
        try:
            intake.accepted.append(_accepted(record, decode))
        except InvalidMessageError as error:
            intake.dead.append(DeadLetter(record, error.reason, error.detail))
    return intake


def _accepted(record: FetchedRecord, decode: Callable[[bytes], MessageT]) -> Accepted[MessageT]:
    raw = record.value or b""
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidMessageError(DeadLetterReason.TOO_LARGE, f"{len(raw)} bytes; at most {MAX_EVENT_BYTES}")
    if NUL_ESCAPE in raw:
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, "a text holds a NUL character")
    try:
        message, text = decode(raw), raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessageError(DeadLetterReason.NOT_JSON, str(error)) from error
    _check_time(message.occurred_at, record)
    if record.key != str(message.user_id).encode():
        detail = "the record's key is not the user_id, so the order of the user's events is lost"
        raise InvalidMessageError(DeadLetterReason.KEY_MISMATCH, detail)
    return Accepted(message, text, record.offset, record)


def _check_time(occurred_at: dt.datetime, record: FetchedRecord) -> None:
    if occurred_at < EARLIEST:
        raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, "occurred_at lies before 1970")
    ahead = occurred_at.timestamp() - record.timestamp / 1000
    if ahead > FUTURE_TOLERANCE_SECONDS:
        detail = f"occurred_at is {ahead:.0f} s after the record's own time; at most {FUTURE_TOLERANCE_SECONDS:.0f}"
        raise InvalidMessageError(DeadLetterReason.IN_THE_FUTURE, detail)
