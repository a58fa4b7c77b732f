"""Sorts fetched records into valid messages and dead letters, by what a record must fulfil to be archived. Pure."""

from __future__ import annotations

import datetime as dt
import re
from binascii import hexlify
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from fincoach_events.events import MAX_EVENT_BYTES
from schemas.errors import InvalidMessageError
from schemas.vocabulary import DeadLetterReason

FUTURE_TOLERANCE_MICROSECONDS = 300 * 1_000_000  # beyond the record's own append time
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # no event of ours is older, and the database has its own limit
_EVENT_TYPE = re.compile(rb'"event_type"\s*:\s*"([a-z_]{1,50})"')
_PEEKED_BYTES = 65_536


class FetchedRecord(Protocol):
    """A record as the reader gives it. ``timestamp`` is the broker's append time in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """The headers beside key and value."""


class TimedMessage(Protocol):
    """The fields that every archived message has."""

    @property
    def user_id(self) -> Any:  # noqa: ANN401 - a UUID; a property because messages are frozen
        """The user that it is about; also the record's key."""

    @property
    def occurred_at(self) -> dt.datetime:
        """When it happened."""


MessageT = TypeVar("MessageT", bound=TimedMessage)


class Accepted(msgspec.Struct, Generic[MessageT], gc=False):
    """A valid message, its record, and values that validation computed on the way.

    ``at``: ``occurred_at`` in microseconds since 1970; ``user``: the 16 bytes of the user's id, which hash faster than a
    UUID. (``gc=False``, because a batch has thousands of them and they form no cycles.)
    """

    message: MessageT
    record: FetchedRecord
    offset: int
    at: int
    user: bytes


class DeadLetter(NamedTuple):
    """A record that cannot be archived, and why."""

    record: FetchedRecord
    reason: str
    detail: str

    @property
    def event_type(self) -> str | None:
        """The event type that the raw bytes claim, so that the right data sets count it as invalid."""
        found = _EVENT_TYPE.search(self.record.value or b"", 0, _PEEKED_BYTES)
        return found.group(1).decode() if found else None


@dataclass(slots=True)
class Intake(Generic[MessageT]):
    """A batch after validation, both parts in the order of their offsets."""

    accepted: list[Accepted[MessageT]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


def take_in(records: Iterable[FetchedRecord], decode: Callable[[bytes], MessageT]) -> Intake[MessageT]:
    """Sort ``records`` into valid messages and dead letters; a bad record raises nothing."""
    intake: Intake[MessageT] = Intake()
    for record in records:
        try:
            intake.accepted.append(_accepted(record, decode))
        except InvalidMessageError as error:
            intake.dead.append(DeadLetter(record, error.reason, error.detail))
    return intake


def accept(message: MessageT, record: FetchedRecord) -> Accepted[MessageT]:
    """Return ``message`` with its record and computed values, without any check."""
    return Accepted(
        message, record, record.offset, microseconds(message.occurred_at), message.user_id.int.to_bytes(16, "big")
    )


def microseconds(moment: dt.datetime) -> int:
    """Return microseconds since 1970 of an aware moment, exactly."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _accepted(record: FetchedRecord, decode: Callable[[bytes], MessageT]) -> Accepted[MessageT]:
    raw = record.value or b""
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidMessageError(DeadLetterReason.TOO_LARGE, f"{len(raw)} bytes; at most {MAX_EVENT_BYTES}")
    item = accept(decode(raw), record)
    if not raw.isascii():
        _check_text(raw)
    if not 0 <= item.at <= record.timestamp * 1000 + FUTURE_TOLERANCE_MICROSECONDS:
        raise _wrong_time(item.at, record)
    if not _is_key(record.key or b"", item.user):
        detail = "the record's key is not the user_id, so the order of the user's events is lost"
        raise InvalidMessageError(DeadLetterReason.KEY_MISMATCH, detail)
    return item


def _check_text(raw: bytes) -> None:
    """Check the text of unknown fields too: the decoder skips it, but the database would refuse invalid UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessageError(DeadLetterReason.NOT_JSON, str(error)) from error


def _wrong_time(at: int, record: FetchedRecord) -> InvalidMessageError:
    if at < 0:
        return InvalidMessageError(DeadLetterReason.INVALID_FIELD, "occurred_at lies before 1970")
    ahead, tolerated = at // 1_000_000 - record.timestamp // 1000, FUTURE_TOLERANCE_MICROSECONDS // 1_000_000
    detail = f"occurred_at is {ahead} s after the record's own time; at most {tolerated}"
    return InvalidMessageError(DeadLetterReason.IN_THE_FUTURE, detail)


def _is_key(key: bytes, user: bytes) -> bool:
    """Return whether ``key`` is the user's id written as a UUID. Formatting the id to compare would cost twice as much."""
    return key.replace(b"-", b"") == hexlify(user) and key[8:24:5] == b"----" and len(key) == 36  # noqa: PLR2004 - of a UUID's text
