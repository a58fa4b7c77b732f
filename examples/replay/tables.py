"""Rows of compressed tables, and the kind of source that is built from rows sorted by time."""

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
    """Yield the rows of a gzipped CSV file with a line of names, in its order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def moment(text: str) -> dt.datetime:
    """Return the aware moment in ``text`` (ISO 8601); what says no offset is taken as UTC."""
    parsed = dt.datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=dt.UTC)


class Dated(Protocol):
    """A fact that knows when it happened."""

    @property
    def occurred_at(self) -> dt.datetime:
        """When it happened."""
        ...


Fact = TypeVar("Fact", bound=Dated)


class SortedSource(Generic[Fact]):
    """A set whose facts fit into memory: sorted once by time, made into events one by one.

    Args:
        name: what the set is called.
        facts: what happened, in any order; those of one moment keep the order given.
        build: makes the event of a fact.
    """

    def __init__(self, name: str, facts: Iterable[Fact], build: Callable[[Fact], ReplayItem]) -> None:
        self.name = name
        self._facts = sorted(facts, key=lambda fact: fact.occurred_at)
        self._build = build

    @property
    def size(self) -> int:
        """How many events there are."""
        return len(self._facts)

    @property
    def ends_at(self) -> dt.datetime:
        """When the last event happened."""
        return self._facts[-1].occurred_at

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield the events in order of time, at most ``limit``."""
        return at_most(limit, map(self._build, self._facts))
