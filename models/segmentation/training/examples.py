"""From a snapshot to rows: users with enough history, described at three moments of time.

A segmentation has no labels that could leak, but it can know the future and remember users. So it is fitted on users at one
moment, selected on users a little later, and judged on users as they are now whom no fit has seen. Three in ten users, by a
hash of their id, are never fitted on by any version; the newest users join them. Judged on the users of its own fit, a
second draw of the same population replaced the champion in 2 of 12 tries. Each source of events has its own clock.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from modelkit.features import replay
from modelkit.training.interface import NotEnoughHistoryError, Snapshot, UserHistory
from models.segmentation.features import segmentation_features

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

TRAIN, VALIDATION, HOLDOUT = 0, 1, 2
SUFFICIENT_TRANSACTIONS = 10
FEWEST_USERS, FEWEST_OF_A_PART = 60, 20
MOST_USERS = 6_000
# A part's moment is when this share of the users had enough history; the holdout's moment is the newest one.
TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.9
HELD_OUT_TENTHS = 3
TRANSACTION = "transaction_creation"

Moments = tuple[dt.datetime, dt.datetime, dt.datetime]


@dataclass(frozen=True, kw_only=True)
class SegmentationExamples:
    """Rows of all parts: ``features`` (n, 15) in the order of ``SEGMENTATION_FEATURES``, ``users`` (n,), ``part`` (n,)."""

    features: Float32Array
    users: IntArray
    part: IntArray

    def of(self, part: int) -> SegmentationExamples:
        """Return the rows of one part."""
        rows = self.part == part
        return SegmentationExamples(features=self.features[rows], users=self.users[rows], part=self.part[rows])

    def drawn(self, rows: int, *, seed: int) -> SegmentationExamples:
        """Return up to ``rows`` of the rows, drawn by seed, in their order."""
        if self.users.size <= rows:
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(self.users.size)[:rows])
        return SegmentationExamples(features=self.features[chosen], users=self.users[chosen], part=self.part[chosen])


def segmentation_examples(snapshot: Snapshot, *, seed: int) -> SegmentationExamples:
    """Return the rows of a snapshot.

    Raises:
        NotEnoughHistoryError: when too few users have ten transactions, at the end or at the first of the moments.
    """
    histories = list(_histories(snapshot, seed=seed))
    if len(histories) < FEWEST_USERS:
        raise NotEnoughHistoryError(_too_few(len(histories), "at the cut", FEWEST_USERS))
    moments = _moments([history.clean for history in histories], source_ends(snapshot))
    rows = [row for number, history in enumerate(histories) for row in _rows(number, history, moments)]
    for part, name in ((TRAIN, "to fit on"), (VALIDATION, "to select on"), (HOLDOUT, "to judge on")):
        users = sum(row[1] == part for row in rows)
        if users < FEWEST_OF_A_PART:
            raise NotEnoughHistoryError(_too_few(users, name, FEWEST_OF_A_PART))
    return SegmentationExamples(
        users=np.array([row[0] for row in rows]),
        part=np.array([row[1] for row in rows]),
        features=np.stack([row[2] for row in rows]),
    )


def _too_few(users: int, purpose: str, needed: int) -> str:
    return (
        f"not enough history ({users} users with {SUFFICIENT_TRANSACTIONS} transactions {purpose}, {needed} are needed)"
    )


def is_held_out(user_id: UUID) -> bool:
    """Say whether a user is never fitted on; the same at every run."""
    return zlib.crc32(user_id.bytes) % 10 < HELD_OUT_TENTHS


def _histories(snapshot: Snapshot, *, seed: int) -> Iterator[UserHistory]:
    """Yield all events of up to ``MOST_USERS`` users with enough transactions that cleaning kept, drawn by seed from the order of their ids."""
    events = snapshot.kept
    transactions = events.filter(pc.equal(events["event_type"], TRANSACTION))
    counts = transactions.group_by("user_id").aggregate([("user_id", "count")]).sort_by("user_id")
    enough = counts.filter(pc.greater_equal(counts["user_id_count"], SUFFICIENT_TRANSACTIONS))["user_id"].to_pylist()
    drawn = np.random.default_rng(seed).permutation(len(enough))[:MOST_USERS]
    chosen = [UUID(bytes=enough[number]) for number in sorted(drawn.tolist())]
    yield from snapshot.among(chosen).users()


def source_ends(snapshot: Snapshot) -> dict[str, dt.datetime]:
    """Return for each source the moment up to which all of its partitions are known.

    A partition with less than half of an even share of the rows says little about how far the source is.
    """
    bounds = snapshot.kept.group_by(["source", "partition"]).aggregate(
        [("occurred_at", "max"), ("occurred_at", "count")]
    )
    found: dict[str, list[tuple[dt.datetime, int]]] = defaultdict(list)
    for row in bounds.to_pylist():
        found[row["source"]].append((row["occurred_at_max"], row["occurred_at_count"]))
    ends = {}
    for source, partitions in found.items():
        even = sum(count for _, count in partitions) / len(partitions)
        ends[source] = min(newest for newest, count in partitions if count >= even / 2)
    return ends


def crossed_at(events: Sequence[AnyBehavioralEvent]) -> dt.datetime:
    """Return when a user with enough transactions had them."""
    times = sorted(event.occurred_at for event in events if isinstance(event, TransactionCreated))
    return times[SUFFICIENT_TRANSACTIONS - 1]


def _moments(histories: Sequence[Sequence[AnyBehavioralEvent]], ends: Mapping[str, dt.datetime]) -> dict[str, Moments]:
    """Return for each source when its users are described for fitting, selecting and judging."""
    crossings: dict[str, list[dt.datetime]] = defaultdict(list)
    for events in histories:
        crossings[events[0].source].append(crossed_at(events))
    moments = {}
    for source, times in crossings.items():
        known = sorted(time for time in times if time <= ends[source]) or [ends[source]]
        fit, select = (
            known[min(round(share * len(known)), len(known) - 1)] for share in (TRAIN_SHARE, VALIDATION_SHARE)
        )
        # An event at the very moment belongs to it.
        moments[source] = tuple(time + dt.timedelta(milliseconds=1) for time in (fit, select, ends[source]))
    return moments  # type: ignore[return-value] # three each


def _rows(number: int, history: UserHistory, moments: Mapping[str, Moments]) -> Iterator[tuple[int, int, Float32Array]]:
    """Yield (user, part, features) for each moment at which the user had enough history and was of the part."""
    fitted_on = False
    held_out = is_held_out(history.user_id)
    for part, (moment, state) in enumerate(replay(history.events, moments[history.clean[0].source])):
        if state is None or state.transactions < SUFFICIENT_TRANSACTIONS:
            continue
        fitted_on = fitted_on or (part == TRAIN and not held_out)
        if held_out == (part == HOLDOUT) or (part == HOLDOUT and not fitted_on):
            yield number, part, segmentation_features(state, moment)
