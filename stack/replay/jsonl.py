"""JSON Lines of any events, from a file or standard input, sent as they are, invalid ones included.

The streams workers validate them: an invalid line becomes a dead letter with its reason.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import msgspec

from schemas.errors import SettingsError
from stack.replay.source import RawRecord, ReplayItem, at_most

STANDARD_INPUT = "-"


class _Head(msgspec.Struct):
    user_id: str | None = None
    event_id: str | None = None


_head_decoder = msgspec.json.Decoder(_Head)


class JsonLinesSource:
    """The lines of a file as records, without empty lines. ``-`` is standard input.

    Raises:
        SettingsError: the file does not exist.
    """

    name = "jsonl"
    ends_at = None

    def __init__(self, file: str) -> None:
        self._file = file
        if file != STANDARD_INPUT and not Path(file).is_file():
            raise SettingsError(
                f"{file} is not there: name a file with one JSON event per line, or - for standard input"
            )

    @functools.cached_property
    def size(self) -> int | None:
        """How many lines the file has; None for standard input."""
        if self._file == STANDARD_INPUT:
            return None
        with Path(self._file).open("rb") as lines:
            return sum(1 for line in lines if line.strip())

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield the lines in order, as records."""
        return at_most(limit, self._records())

    def _records(self) -> Iterator[RawRecord]:
        with _opened(self._file) as lines:
            for line in lines:
                if value := line.strip():
                    yield raw_record(value)


def raw_record(value: bytes) -> RawRecord:
    """Return bytes as a record; its key is the user named in them, if one can be read."""
    try:
        head = _head_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return RawRecord(value=value)
    return RawRecord(
        value=value, key=head.user_id.encode() if head.user_id else None, event_id=_identifier(head.event_id)
    )


def _identifier(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as lines:
        yield lines
