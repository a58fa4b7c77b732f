"""When a producer has too many dead letters: by their share of its records, or by how many follow each other. Pure.

Each worker judges a sliding window of its own batches. A producer is counted only while the window holds a dead letter of
it, so that good events cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """The limits: a ratio, which counts from ``least_records`` on, and a number without a valid record in between."""

    ratio: float = 0.25
    consecutive: int = 100
    least_records: int = 100
    window_seconds: float = 60.0


class Tally(NamedTuple):
    """One producer's records in one batch; ``trailing`` dead letters follow its last valid record."""

    dead: int
    valid: int
    trailing: int


class Excess(NamedTuple):
    """An exceeded limit: the producer and the figures."""

    producer: str
    dead: int
    records: int
    consecutive: int
    sentence: str


@dataclass(slots=True)
class _Watched:
    """One producer in the window: its tallies with their times, their sums, and its dead letters since its last valid record."""

    seen: deque[tuple[float, Tally]] = field(default_factory=deque)
    dead: int = 0
    valid: int = 0
    run: int = 0

    def add(self, tally: Tally, *, now: float) -> None:
        self.seen.append((now, tally))
        self.dead += tally.dead
        self.valid += tally.valid
        self.run = tally.trailing if tally.valid else self.run + tally.dead

    def expire(self, before: float) -> None:
        while self.seen and self.seen[0][0] <= before:
            _, tally = self.seen.popleft()
            self.dead -= tally.dead
            self.valid -= tally.valid


@dataclass(slots=True)
class LimitWindow:
    """What a worker recently saw of producers with dead letters."""

    policy: LimitPolicy
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _taken: dict[Hashable, Hashable] = field(default_factory=dict)

    def watched(self, now: float) -> frozenset[str]:
        """Return the producers with a dead letter in the window."""
        for producer in list(self._watched):
            watched = self._watched[producer]
            watched.expire(now - self.policy.window_seconds)
            if not watched.dead:
                del self._watched[producer]
        return frozenset(self._watched)

    def take(
        self, partition: Hashable, position: Hashable, tallies: Mapping[str, Tally], *, now: float
    ) -> list[Excess]:
        """Add the tallies of one batch and return the limits that it exceeds. A batch that is tried again counts once."""
        self.watched(now)
        if self._taken.get(partition) != position:
            self._taken[partition] = position
            for producer, tally in tallies.items():
                if tally.dead or producer in self._watched:
                    self._watched.setdefault(producer, _Watched()).add(tally, now=now)
        return [
            excess
            for producer, tally in tallies.items()
            if tally.dead and producer in self._watched and (excess := self._excess(producer, self._watched[producer]))
        ]

    def _excess(self, producer: str, watched: _Watched) -> Excess | None:
        policy, dead, records = self.policy, watched.dead, watched.dead + watched.valid
        if watched.run >= policy.consecutive:
            sentence = (
                f"{watched.run} records of {producer} one after the other could not be taken in;"
                f" the limit is {policy.consecutive}"
            )
        elif records >= policy.least_records and dead > policy.ratio * records:
            sentence = (
                f"{dead} of the last {records} records of {producer} could not be taken in;"
                f" the limit is {policy.ratio:.0%} of {policy.least_records} or more"
            )
        else:
            return None
        return Excess(producer, dead, records, watched.run, sentence)
