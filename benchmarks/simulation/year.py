"""Simulates a year of arrivals with the threshold rule of streams, pane by pane and hour by hour. Pure.

The rule, the pattern of arrivals and the share of a user are the product's own code. All data is good, trainings take no
time and cost the same, and there is no drift: only when a model learns, and from how much, is compared.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.simulation.arrivals import HOUR, Arrival
from modelkit.statistics.sketches import excess
from schemas.thresholds import ThresholdRule
from streams.epochs.arrivals import ArrivalPattern, expected_ratio, observed
from streams.epochs.thresholds import Circumstances, Evaluation, decide
from streams.quality.assessment import QualityAssessment

PANE_POINTS = 10  # few, to show how often a rule without a cool-down would fire
MAX_AGE_SECONDS = 30 * 86_400
GOOD = QualityAssessment(score=1.0, dimensions={}, below_floor=(), anomalies=0, duplicates=0, missing=0, parts={})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A rule, and the circumstances that it takes into account."""

    name: str
    rule: ThresholdRule
    with_size: bool = True
    with_season: bool = True

    @property
    def fewest(self) -> int:
        """Return the least count at which the rule may fire; below it, the rule need not be evaluated."""
        least = self.rule.bounds()[0] if self.rule.adaptive else self.rule.threshold
        return min(least, self.rule.aged_threshold()) if self.rule.max_age_seconds else least


def variants(threshold: int, *, cool_down_seconds: int) -> tuple[Variant, ...]:
    """Return the compared rules: the fixed threshold, the adaptive one, and variants of each with a part added or removed."""
    fixed = ThresholdRule(threshold=threshold)
    whole = ThresholdRule(
        threshold=threshold, adaptive=True, cool_down_seconds=cool_down_seconds, max_age_seconds=MAX_AGE_SECONDS
    )
    return (
        Variant(name="fixed", rule=fixed),
        Variant(name="fixed, cool-down", rule=msgspec.structs.replace(fixed, cool_down_seconds=cool_down_seconds)),
        Variant(name="adaptive", rule=whole),
        Variant(name="without size", rule=whole, with_size=False),
        Variant(name="without season", rule=whole, with_season=False),
        Variant(name="without age", rule=msgspec.structs.replace(whole, max_age_seconds=None)),
        Variant(name="without cool-down", rule=msgspec.structs.replace(whole, cool_down_seconds=0)),
    )


class Crossing(NamedTuple):
    """A training that would begin: its time, its number of data points, and the reason in a sentence."""

    at: dt.datetime
    counted: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Year:
    """The result of one variant: crossings, waiting data points at the end of each hour, and hours that each point waited."""

    name: str
    crossings: list[Crossing]
    waiting: list[tuple[dt.datetime, int]]
    waited_hours: list[float]

    def figures(self) -> dict[str, float]:
        """Return the figures of the table."""
        waiting = np.array([count for _, count in self.waiting] or [0])
        hours, sizes = np.array(self.waited_hours or [0.0]), [crossing.counted for crossing in self.crossings]
        days = Counter(crossing.at.date() for crossing in self.crossings)
        return {
            "trainings": len(self.crossings),
            "busiest_day": max(days.values(), default=0),
            "points_per_training": float(np.mean(sizes)) if sizes else float("nan"),
            "waiting_points_mean": float(waiting.mean()),
            "waiting_points_p95": float(np.quantile(waiting, 0.95)),
            "waited_hours_mean": float(hours.mean()),
            "waited_hours_p95": float(np.quantile(hours, 0.95)),
        }


@dataclass(slots=True, kw_only=True)
class _ModelState:
    """The open data set of a simulated model, and the facts kept of the closed ones."""

    variant: Variant
    begun: dt.datetime
    open: list[dt.datetime] = field(default_factory=list)
    users: Counter[bytes] = field(default_factory=Counter)
    pattern: ArrivalPattern | None = None
    sizes: list[int] = field(default_factory=list)
    crossed_at: dt.datetime | None = None

    def take(self, pane: Sequence[Arrival], at: dt.datetime) -> None:
        """Count a pane."""
        self.open += [arrival.at for arrival in pane]
        self.users.update(arrival.user.encode() for arrival in pane)
        self.pattern = observed(self.pattern, at, len(pane))

    def evaluate(self, at: dt.datetime) -> Evaluation:
        """Evaluate the rule."""
        since = None if self.crossed_at is None else (at - self.crossed_at).total_seconds()
        now = Circumstances(
            learned=sum(self.sizes) if self.variant.with_size else 0,
            first=self.sizes[0] if self.sizes else 0,
            arrivals_ratio=expected_ratio(self.pattern, at) if self.variant.with_season else None,
            age_seconds=(at - self.begun).total_seconds(),
            seconds_since_epoch=since,
            moment=at,
        )
        return decide(
            self.variant.rule,
            now,
            counted=len(self.open),
            quality=GOOD,
            users=len(self.users),
            excess=lambda cap: excess(self.users, cap),
        )

    def cross(self, at: dt.datetime) -> list[float]:
        """Open the next data set; return the hours that each data point of this one waited."""
        waited = [(at - arrived) / HOUR for arrived in self.open]
        self.sizes.append(len(self.open))
        self.open, self.users, self.begun, self.crossed_at = [], Counter(), at, at
        return waited


def simulate(arrivals: Sequence[Arrival], variant: Variant) -> Year:
    """Simulate one variant on ``arrivals``, which are in order of time; the last open data points wait until the end."""
    state = _ModelState(variant=variant, begun=arrivals[0].at)
    year = Year(name=variant.name, crossings=[], waiting=[], waited_hours=[])
    end = arrivals[0].at
    for at, pane in _evaluations(arrivals):
        end = at
        if pane:
            state.take(pane, at)
        elif state.pattern is not None:
            state.pattern = observed(state.pattern, at, 0)
        evaluation = state.evaluate(at) if len(state.open) >= variant.fewest else None
        if evaluation is not None and evaluation.fired:
            year.crossings.append(Crossing(at, len(state.open), evaluation.sentence))
            year.waited_hours.extend(state.cross(at))
        if not pane:
            year.waiting.append((at, len(state.open)))
    year.waited_hours.extend((end - arrived) / HOUR for arrived in state.open)
    return year


def _evaluations(arrivals: Sequence[Arrival]) -> Iterator[tuple[dt.datetime, Sequence[Arrival]]]:
    """Yield (moment, pane) at the last data point of each pane, and (moment, ()) at the end of each hour."""
    by_hour = itertools.groupby(arrivals, key=lambda arrival: arrival.at.replace(minute=0, second=0, microsecond=0))
    expected: dt.datetime | None = None
    for hour, group in by_hour:
        while expected is not None and expected < hour:
            expected += HOUR
            yield expected, ()
        members = list(group)
        for first in range(0, len(members), PANE_POINTS):
            pane = members[first : first + PANE_POINTS]
            yield pane[-1].at, pane
        expected = hour + HOUR
        yield expected, ()
