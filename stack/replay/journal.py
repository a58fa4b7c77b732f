"""The producer's journal: one line per acknowledged record, from which a run is recounted afterwards.

The figures of a run come from the journal and the database, never from the counters that they check.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import msgspec

from fincoach_events.buffer import OutgoingEvent
from fincoach_events.errors import InvalidEventError
from fincoach_events.events import AnyBehavioralEvent, decode_event

_BUFFERED_LINES = 500
_encoder = msgspec.json.Encoder()


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record that the broker acknowledged; ``valid`` says whether it meets the contract."""

    partition: int
    offset: int
    valid: bool
    event_id: UUID | None = None
    event_type: str | None = None
    interaction_type: str | None = None
    user_id: UUID | None = None
    source: str | None = None


class JournalCount(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a journal.

    Attributes:
        lines: acknowledged records, repetitions included.
        distinct_events: valid events with different ids; all must be archived.
        duplicates: valid records whose event was sent before.
        invalid: records that break the contract; all must be dead-lettered.
        by_type: distinct valid events by ``event_type/interaction_type``.
        torn_lines: incomplete lines (the process was killed); their events are not counted.
    """

    lines: int
    distinct_events: int
    duplicates: int
    invalid: int
    by_type: dict[str, int]
    torn_lines: int


_decoder = msgspec.json.Decoder(JournalLine)


class Journal:
    """An append-only JSON Lines file; several runs may append to one.

    ``note`` can be a producer's ``on_acknowledged``. Lines are written in groups; ``flush`` writes the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lines: list[bytes] = []
        self._sink = path.open("ab")

    def note(self, outgoing: OutgoingEvent, partition: int, offset: int) -> None:
        """Record an acknowledged event."""
        self._lines.append(_encoder.encode(_line(outgoing, partition, offset)))
        if len(self._lines) >= _BUFFERED_LINES:
            self.flush()

    def note_invalid(self, outgoing: OutgoingEvent, partition: int, offset: int) -> None:
        """Record an acknowledged record that is invalid for a reason its bytes do not show, such as its date or size."""
        self._lines.append(
            _encoder.encode(JournalLine(partition=partition, offset=offset, valid=False, event_id=outgoing.event_id))
        )

    def flush(self) -> None:
        """Write all recorded lines to the operating system."""
        if self._lines:
            self._sink.write(b"\n".join(self._lines) + b"\n")
            self._lines.clear()
        self._sink.flush()

    def recount(self) -> JournalCount:
        """Count the whole file."""
        self.flush()
        return recount([self.path])

    def close(self) -> None:
        """Write the rest and close the file; may be called twice."""
        if not self._sink.closed:
            self.flush()
            self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def recount(paths: Iterable[Path]) -> JournalCount:
    """Count several journals as one: an event in two of them is a duplicate."""
    seen: set[UUID] = set()
    by_type: collections.Counter[str] = collections.Counter()
    figures: collections.Counter[str] = collections.Counter()
    for path in paths:
        with path.open("rb") as lines:
            for raw in lines:
                _count(raw, seen=seen, by_type=by_type, figures=figures)
    return JournalCount(
        lines=figures["lines"],
        distinct_events=len(seen),
        duplicates=figures["duplicates"],
        invalid=figures["invalid"],
        by_type=dict(sorted(by_type.items())),
        torn_lines=figures["torn_lines"],
    )


def _count(
    raw: bytes, *, seen: set[UUID], by_type: collections.Counter[str], figures: collections.Counter[str]
) -> None:
    try:
        line = _decoder.decode(raw)
    except msgspec.MsgspecError:
        figures["torn_lines"] += 1
        return
    figures["lines"] += 1
    if not line.valid or line.event_id is None:
        figures["invalid"] += 1
    elif line.event_id in seen:
        figures["duplicates"] += 1
    else:
        seen.add(line.event_id)
        by_type[f"{line.event_type}/{line.interaction_type}"] += 1


def _line(outgoing: OutgoingEvent, partition: int, offset: int) -> JournalLine:
    event = outgoing.event or _event_in(outgoing.value)
    if event is None:
        return JournalLine(partition=partition, offset=offset, valid=False, event_id=outgoing.event_id)
    return JournalLine(
        partition=partition,
        offset=offset,
        valid=True,
        event_id=event.event_id,
        event_type=str(event.__struct_config__.tag),
        interaction_type=event.interaction_type,
        user_id=event.user_id,
        source=event.source,
    )


def _event_in(raw: bytes) -> AnyBehavioralEvent | None:
    try:
        return decode_event(raw)
    except InvalidEventError:
        return None
