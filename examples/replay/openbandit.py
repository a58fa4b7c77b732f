"""Open Bandit, campaign "men": 2 x 10,000 impressions with true propensities, for off-policy evaluation (ZOZO, Inc.).

The files come inside the ``obp`` 0.5.7 source archive (Apache License 2.0), which is read and never installed. Saito et
al., arXiv:2008.07146. One logging policy chose uniformly (``random``), the other by Thompson sampling (``bts``). The set
does not say which impressions belong to one person, so each gets its own user: neighbouring rows are no trajectory. A
click has the time of its impression.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import tarfile
from collections.abc import Iterator
from typing import Literal, NamedTuple

from examples.replay.tables import Row, SortedSource, moment
from fincoach_events.events import RecommendationInteraction
from schemas.errors import SettingsError
from stack.replay.packages import Package, fetch_package
from stack.replay.source import envelope
from stack.settings import MachineSettings

PACKAGE = Package(
    requirement="obp==0.5.7",
    sha256="3060d67fedfcfadf1e7a6f2608987f74412b5eb74d2c567edeb147595c68f2a0",
    options=("--ignore-requires-python",),
)
FILE = "obp-0.5.7/obp/dataset/obd/{policy}/men/men.csv"
POLICIES = ("random", "bts")
ACTION_SET = "openbandit-men-34"
_AFFINITY = "user-item_affinity_"
_USER_FEATURE = "user_feature_"


class ImpressionFact(NamedTuple):
    """An impression, or the click on it."""

    occurred_at: dt.datetime
    interaction: Literal["view", "click"]
    policy: str
    number: int
    row: Row


def openbandit(settings: MachineSettings | None = None) -> SortedSource[ImpressionFact]:
    """Return the impressions and clicks of both policies.

    Raises:
        DownloadFailedError: the archive cannot be fetched.
    """
    return SortedSource("openbandit", _facts(settings), _interaction)


def _facts(settings: MachineSettings | None) -> Iterator[ImpressionFact]:
    for policy in POLICIES:
        for number, row in enumerate(_rows(policy, settings)):
            seen_at = moment(row["timestamp"])
            yield ImpressionFact(seen_at, "view", policy, number, row)
            if row["click"] == "1":
                yield ImpressionFact(seen_at, "click", policy, number, row)


def _rows(policy: str, settings: MachineSettings | None) -> Iterator[Row]:
    with tarfile.open(fetch_package(PACKAGE, settings), "r:gz") as archive:
        raw = archive.extractfile(FILE.format(policy=policy))
        if raw is None:
            raise SettingsError(f"{PACKAGE.requirement} holds no {FILE.format(policy=policy)}")
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def _interaction(fact: ImpressionFact) -> RecommendationInteraction:
    row = fact.row
    name = f"{fact.policy}:{fact.number}"
    is_view = fact.interaction == "view"
    return RecommendationInteraction(
        **envelope("openbandit", f"{name}:{fact.interaction}", user=name, occurred_at=fact.occurred_at),
        recommendation_id=f"openbandit:{name}",
        interaction_type=fact.interaction,
        action_set=ACTION_SET,
        action=f"item-{row['item_id']}",
        position=int(row["position"]),
        propensity=float(row["propensity_score"]) if is_view else None,
        context=_context(row) if is_view else None,
        additional_data={"policy": fact.policy} | _categories(row) if is_view else None,
    )


def _context(row: Row) -> dict[str, float]:
    """Return the affinities that are not zero: nearly all are zero."""
    return {name: float(value) for name, value in row.items() if name.startswith(_AFFINITY) and float(value)}


def _categories(row: Row) -> dict[str, str]:
    return {name: value for name, value in row.items() if name.startswith(_USER_FEATURE)}
