"""Rows of compressed tables, and a source that sorts them by time."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from stack.replay.source import ReplayItem, at_most

Row = dict[str, str]


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a gzipped CSV file with a header line, in order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def moment(text: str) -> dt.datetime:
    """Return the aware moment in ``text`` (ISO 8601); without an offset it is UTC."""
    parsed = dt.datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=dt.UTC)


class Dated(Protocol):
    """A fact with a time."""

    @property
    def occurred_at(self) -> dt.datetime:
        """The time of the fact."""
        ...


Fact = TypeVar("Fact", bound=Dated)


class SortedSource(Generic[Fact]):
    """A set whose facts fit into memory: sorted by time once, turned into events one by one.

    Args:
        name: the name of the set.
        facts: the facts in any order; facts of one moment keep their order.
        build: returns the event of a fact.
    """

    def __init__(self, name: str, facts: Iterable[Fact], build: Callable[[Fact], ReplayItem]) -> None:
        self.name = name
        self._facts = sorted(facts, key=lambda fact: fact.occurred_at)
        self._build = build

    @property
    def size(self) -> int:
        """The number of events."""
        return len(self._facts)

    @property
    def ends_at(self) -> dt.datetime:
        """The time of the last event."""
        return self._facts[-1].occurred_at

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield at most ``limit`` events, in order of time."""
        return at_most(limit, map(self._build, self._facts))
