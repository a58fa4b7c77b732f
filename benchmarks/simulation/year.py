"""A year of arrivals through the rule that decides in streams, pane by pane and hour by hour. Pure.

The rule, the pattern of arrivals and the share of a user are the product's own. Data is taken as good, trainings as done
at once and as costing the same, and no drift is measured: what is compared is when a model learns, and from how much.
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

PANE_POINTS = 10  # few, so that a rule without a pause shows how often it would fire
MAX_AGE_SECONDS = 30 * 86_400
GOOD = QualityAssessment(score=1.0, dimensions={}, below_floor=(), anomalies=0, duplicates=0, missing=0, parts={})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A rule, and which circumstances it is told."""

    name: str
    rule: ThresholdRule
    with_size: bool = True
    with_season: bool = True

    @property
    def fewest(self) -> int:
        """Return the least count at which the rule may fire; below it nobody needs to ask."""
        least = self.rule.bounds()[0] if self.rule.adaptive else self.rule.threshold
        return min(least, self.rule.aged_threshold()) if self.rule.max_age_seconds else least


def variants(threshold: int, *, cool_down_seconds: int) -> tuple[Variant, ...]:
    """Return what is compared: the fixed threshold alone, the adaptive one, and each with a part taken away or added."""
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
    """A training that would begin: when, with how many data points, and the sentence that says why."""

    at: dt.datetime
    counted: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Year:
    """What one variant made of the arrivals: crossings, data points that waited at the end of each hour, hours that each waited."""

    name: str
    crossings: list[Crossing]
    waiting: list[tuple[dt.datetime, int]]
    waited_hours: list[float]

    def figures(self) -> dict[str, float]:
        """Return what the table shows."""
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
class _Standing:
    """The open data set of a simulated model, and what is remembered of the closed ones."""

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

    def asked(self, at: dt.datetime) -> Evaluation:
        """Ask the rule."""
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
            self.variant.rule, now, counted=len(self.open), quality=GOOD, users=len(self.users),
            excess=lambda cap: excess(self.users, cap),
        )  # fmt: skip

    def cross(self, at: dt.datetime) -> list[float]:
        """Open the next data set; return how many hours each data point of this one waited."""
        waited = [(at - arrived) / HOUR for arrived in self.open]
        self.sizes.append(len(self.open))
        self.open, self.users, self.begun, self.crossed_at = [], Counter(), at, at
        return waited


def simulate(arrivals: Sequence[Arrival], variant: Variant) -> Year:
    """Play ``arrivals``, in order of time, through one variant; what waits when they end has waited until then."""
    standing = _Standing(variant=variant, begun=arrivals[0].at)
    year = Year(name=variant.name, crossings=[], waiting=[], waited_hours=[])
    end = arrivals[0].at
    for at, pane in _looks(arrivals):
        end = at
        if pane:
            standing.take(pane, at)
        elif standing.pattern is not None:
            standing.pattern = observed(standing.pattern, at, 0)
        evaluation = standing.asked(at) if len(standing.open) >= variant.fewest else None
        if evaluation is not None and evaluation.fired:
            year.crossings.append(Crossing(at, len(standing.open), evaluation.sentence))
            year.waited_hours.extend(standing.cross(at))
        if not pane:
            year.waiting.append((at, len(standing.open)))
    year.waited_hours.extend((end - arrived) / HOUR for arrived in standing.open)
    return year


def _looks(arrivals: Sequence[Arrival]) -> Iterator[tuple[dt.datetime, Sequence[Arrival]]]:
    """Yield (moment, pane) for each pane, when its last data point came, and (moment, nothing) at the end of each hour, one hour more than the last."""
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
