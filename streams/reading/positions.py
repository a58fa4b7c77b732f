"""Where each ledger partition stands, and what a fetched batch may do there. Pure: no broker, no database.

A partition without a position takes nothing: it was revoked, or its place in the ledger is being read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Partition = TypeVar("Partition")


class Admission(enum.Enum):
    """What becomes of a fetched batch."""

    TAKE = "take"  # it holds the next offset
    SKIP = "skip"  # all of it is behind us, a read again will bring it, or the partition has no position
    READ_AGAIN = "read_again"  # it begins above the next offset: what lies between may only be delayed
    ASK = "ask"  # so did the second read: take it if the broker itself has nothing in between


@dataclass(slots=True)
class Position:
    """The next offset of a partition, its end when last seen, and where the first batch behind a hole began."""

    next_offset: int
    end_offset: int
    hole: int | None = None


@dataclass(slots=True)
class Positions(Generic[Partition]):
    """The positions of the partitions that this worker reads."""

    _known: dict[Partition, Position] = field(default_factory=dict)

    def place(self, partition: Partition, next_offset: int, end_offset: int) -> None:
        """Take the ledger's word for where ``partition`` stands; a hole seen before is forgotten."""
        self._known[partition] = Position(next_offset, end_offset)

    def forget(self, partition: Partition) -> None:
        """Take nothing of ``partition`` until it is placed again."""
        self._known.pop(partition, None)

    def get(self, partition: Partition) -> Position | None:
        """Return the position of ``partition``, if it has one."""
        return self._known.get(partition)

    def items(self) -> list[tuple[Partition, Position]]:
        """Return all partitions with their positions."""
        return list(self._known.items())

    def admit(self, partition: Partition, *, first: int, last: int) -> Admission:
        """Decide about a batch with offsets ``first`` to ``last``.

        A batch above the next offset is read again from there. When the second read begins at the same offset, the
        hole may be real (retention or control records), or the first batch of that read was lost as well: only the
        broker knows. Batches that were fetched behind the first one are skipped meanwhile: the second read brings
        them too.
        """
        position = self._known.get(partition)
        if position is None or last < position.next_offset:
            return Admission.SKIP
        if first <= position.next_offset:
            return Admission.TAKE
        if position.hole is None or first < position.hole:
            position.hole = first
            return Admission.READ_AGAIN
        return Admission.ASK if first == position.hole else Admission.SKIP

    def forget_hole(self, partition: Partition) -> None:
        """Believe nothing yet of a hole: what lies behind it may have moved."""
        position = self._known.get(partition)
        if position is not None:
            position.hole = None

    def advance(self, partition: Partition, to_offset: int) -> None:
        """Move on after a committed batch; never back: the partition may have been placed meanwhile."""
        position = self._known.get(partition)
        if position is not None and to_offset > position.next_offset:
            position.next_offset = to_offset
            position.end_offset = max(position.end_offset, to_offset)
            position.hole = None
