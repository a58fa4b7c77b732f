"""A producer's journal: a line before each send, a line after each acknowledgement. The oracle recounts from it.

Each line is written whole, before the send that it announces, so a killed producer leaves at most one torn line, at the
end.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from backends.clock import Clock

_encoder = msgspec.json.Encoder()
_TAIL_BYTES = 262_144


class SendLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="send"):
    """What is about to be sent. ``event`` is the JSON as sent, or null if the bytes are not a JSON object."""

    t: float
    id: int
    kind: str
    valid: bool
    event: msgspec.Raw | None
    raw_sha256: str
    bytes: int


class AckLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="ack"):
    """Where the broker put what was sent; ``offset`` is null if the client does not report it."""

    t: float
    id: int
    topic: str
    partition: int
    offset: int | None


class EndLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="unsent"):
    """What the client refused or gave up; it may still be in the topic."""

    t: float
    id: int
    reason: str


class ProducerJournal:
    """Appends to one file. Each restart of a producer has its own, because its numbers begin anew."""

    def __init__(self, path: Path, clock: Clock) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._clock = clock
        self._next = 0

    def sending(self, kind: str, raw: bytes | None, *, valid: bool) -> int:
        """Record what is about to be sent and return its number; ``raw`` is None for a record without a value."""
        self._next += 1
        line = SendLine(
            t=self._now(), id=self._next, kind=kind, valid=valid, event=_as_json(raw),
            raw_sha256=hashlib.sha256(raw or b"").hexdigest(), bytes=len(raw or b""),
        )  # fmt: skip
        self._write(line)
        return self._next

    def acknowledged(self, number: int, *, topic: str, partition: int, offset: int | None) -> None:
        """Record that the broker has it."""
        known = None if offset is None or offset < 0 else offset
        self._write(AckLine(t=self._now(), id=number, topic=topic, partition=partition, offset=known))

    def unsent(self, number: int, reason: str) -> None:
        """Record that the client refused it or gave it up."""
        self._write(EndLine(t=self._now(), id=number, reason=reason))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _write(self, line: msgspec.Struct) -> None:
        os.write(self._file, _encoder.encode(line) + b"\n")


def _as_json(raw: bytes | None) -> msgspec.Raw | None:
    """Return ``raw`` unchanged if it is a JSON object on one line."""
    if not raw or not raw.startswith(b"{") or b"\n" in raw:
        return None
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return msgspec.Raw(raw)


def read_lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the lines of journals as plain values, without torn ones."""
    for path in paths:
        with path.open("rb") as file:
            for raw in file:
                if raw.endswith(b"\n"):
                    yield msgspec.json.decode(raw)


class _Sent(msgspec.Struct, frozen=True):
    """The part of a line that other producers need."""

    op: str
    valid: bool = False
    event: msgspec.Raw = msgspec.Raw()


_sent = msgspec.json.Decoder(_Sent)


def last_events(path: Path) -> list[bytes]:
    """Return the last valid events in a journal, as raw bytes."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[1:-1]
    sends = [_sent.decode(line) for line in lines]
    return [bytes(line.event) for line in sends if line.op == "send" and line.valid]
