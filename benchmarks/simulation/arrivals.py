"""The arrivals of a model's data points: from real sets, and from a synthetic year. Counted as in streams."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fincoach_events.events import GoalModified, TransactionCreated
from models.segmentation.dataset import SUFFICIENT_TRANSACTIONS
from schemas.vocabulary import GOAL_OUTCOMES, ModelType
from stack.replay.catalogue import open_source
from stack.replay.source import ReplayItem

HOUR = dt.timedelta(hours=1)
SYNTHETIC_BEGIN = dt.datetime(2025, 1, 6, tzinfo=dt.UTC)


class Arrival(NamedTuple):
    """The time of one counted data point, and its user."""

    at: dt.datetime
    user: str


Counted = Callable[[Iterable[ReplayItem]], Iterator[Arrival]]


def transactions(items: Iterable[ReplayItem]) -> Iterator[Arrival]:
    """Yield the data points of spending: every transaction."""
    for item in items:
        if isinstance(item, TransactionCreated):
            yield Arrival(item.occurred_at, item.user_id.hex)


def sufficient_users(items: Iterable[ReplayItem]) -> Iterator[Arrival]:
    """Yield the data points of segmentation: each user once, with the transaction that makes enough."""
    seen: Counter[str] = Counter()
    for arrival in transactions(items):
        seen[arrival.user] += 1
        if seen[arrival.user] == SUFFICIENT_TRANSACTIONS:
            yield arrival


def outcomes(items: Iterable[ReplayItem]) -> Iterator[Arrival]:
    """Yield the data points of goals: each outcome, achieved or failed."""
    for item in items:
        if isinstance(item, GoalModified) and item.interaction_type in GOAL_OUTCOMES:
            yield Arrival(item.occurred_at, item.user_id.hex)


REAL: Mapping[ModelType, tuple[str, Counted]] = {
    "spending": ("onlineretail", transactions),
    "segmentation": ("onlineretail", sufficient_users),
    "goal": ("oulad", outcomes),
}


def real(model_type: ModelType, data: Path | None) -> list[Arrival]:
    """Return the data points of the model's set, in order of time.

    Raises:
        SettingsError: the set is not in the folder.
    """
    name, counted = REAL[model_type]
    return spread(counted(_counting(name, data)))


@functools.lru_cache(maxsize=1)
def _counting(name: str, data: Path | None) -> tuple[ReplayItem, ...]:
    """Return the events of a set that may count for a model; two models of one set share one read."""
    kinds = (TransactionCreated, GoalModified)
    return tuple(item for item in open_source(name, data=data).events() if isinstance(item, kinds))


def synthetic(*, days: int = 365, mean_a_day: float = 24.0, burst: int = 0) -> list[Arrival]:
    """Return a deterministic year: busy days and hours, growth by half, and a ``burst`` of data points in its last hour."""
    owed = 0.0
    found: list[Arrival] = []
    for hour in range(days * 24):
        at = SYNTHETIC_BEGIN + hour * HOUR
        weekday, of_day = 0.2 if at.weekday() >= 5 else 1.32, 2.0 if 8 <= at.hour < 20 else 0.0
        owed += mean_a_day / 24 * weekday * of_day * (0.75 + 0.5 * hour / (days * 24))
        found += [Arrival(at, f"user-{len(found) + number}") for number in range(int(owed))]
        owed %= 1.0
    last = SYNTHETIC_BEGIN + dt.timedelta(days=days)
    return spread([*found, *(Arrival(last, f"late-{number}") for number in range(burst))])


def spread(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Return the arrivals in order of time; those of one moment are spread evenly over the following hour.

    Some sets date all outcomes of a day to one second; no host writes thousands within one second.
    """
    ordered = sorted(arrivals, key=lambda arrival: arrival.at)
    placed: list[Arrival] = []
    for at, group in itertools.groupby(ordered, key=lambda arrival: arrival.at):
        members = list(group)
        placed += [Arrival(at + number * HOUR / len(members), member.user) for number, member in enumerate(members)]
    return sorted(placed, key=lambda arrival: arrival.at)
