"""From a snapshot to rows: goals whose outcome is known, as they stood at moments before their end.

A row is made by the reducer that serves, replayed up to a third and two thirds of the goal's planned span. That
moment follows from the plan alone: the outcome's own date would give it away, since only failures come early. For the
same reason a goal enters once its planned end has come, not when its outcome does.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fincoach_events.events import AnyBehavioralEvent, GoalModified
from modelkit.features import replay
from modelkit.training.interface import NotEnoughHistoryError, Snapshot, UserHistory
from models.goal.features import GOAL_FEATURES, goal_features

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TRAIN, VALIDATION, HOLDOUT, BETWEEN, LEFT_OUT = range(5)
KNOWN_BEFORE_HOLDOUT = (TRAIN, VALIDATION, BETWEEN)
SHARES_OF_SPAN = (1 / 3, 2 / 3)
DAYS_WITHOUT_END = (7, 30, 90)
MOST_USERS = 5_000
FEWEST_OUTCOMES = 50
FEWEST_TRAIN_ROWS, FEWEST_VALIDATION_ROWS = 60, 30
FEWEST_OF_A_CLASS = 5
EARLIER_TO_LATER = 3.0  # rows before a border for one behind it


class DecidedGoal(NamedTuple):
    """One goal: its first plan, and how it ended."""

    goal_id: str
    created_at: dt.datetime
    due_at: dt.datetime | None
    ended_at: dt.datetime
    achieved: bool

    @property
    def known_at(self) -> dt.datetime:
        """Return when outcome and planned end had both come."""
        return max(self.ended_at, self.due_at or self.ended_at)

    def moments(self) -> Iterator[dt.datetime]:
        """Yield the moments at which the goal is looked at: planned ones, as long as it was open."""
        if self.due_at is None:
            planned = [self.created_at + dt.timedelta(days=days) for days in DAYS_WITHOUT_END]
        else:
            planned = [self.created_at + share * (self.due_at - self.created_at) for share in SHARES_OF_SPAN]
        yield from (moment for moment in planned if self.created_at < moment < self.ended_at)


@dataclass(frozen=True, kw_only=True)
class GoalExamples:
    """Rows of all parts: ``features`` (n, 61) in the order of ``GOAL_FEATURES``; the others (n,).

    ``moments`` and ``known_at`` are seconds since 1970: when the row could have been asked for, and when its outcome was known.
    """

    features: Float32Array
    achieved: BoolArray
    users: IntArray
    moments: FloatArray
    known_at: FloatArray
    part: IntArray

    def of(self, *parts: int) -> GoalExamples:
        """Return the rows of some parts."""
        return self.only(np.isin(self.part, parts))

    def only(self, rows: BoolArray | IntArray) -> GoalExamples:
        """Return some rows."""
        return GoalExamples(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def drawn(self, rows: int, *, seed: int) -> GoalExamples:
        """Return up to ``rows`` of the rows, drawn by seed, in their order."""
        if self.users.size <= rows:
            return self
        return self.only(np.sort(np.random.default_rng(seed).permutation(self.users.size)[:rows]))

    def column(self, name: str) -> FloatArray:
        """Return one feature, (n,)."""
        return self.features[:, GOAL_FEATURES.index(name)].astype(np.float64)


class _Row(NamedTuple):
    user: int
    moment: float
    known_at: float
    achieved: bool
    features: Float32Array


def goal_examples(snapshot: Snapshot, *, seed: int) -> GoalExamples:
    """Return the rows of a snapshot.

    Raises:
        NotEnoughHistoryError: when there are too few outcomes, or none that could be predicted after others were known.
    """
    ends = _source_ends(snapshot)
    rows = [
        row
        for number, history in enumerate(_histories(snapshot, seed=seed))
        for row in _rows(number, history, ends)
    ]  # fmt: skip
    if len(rows) < FEWEST_OUTCOMES:
        message = f"not enough history ({len(rows)} views of goals whose end has come, {FEWEST_OUTCOMES} are needed)"
        raise NotEnoughHistoryError(message)
    moments, known_at = np.array([row.moment for row in rows]), np.array([row.known_at for row in rows])
    examples = GoalExamples(
        users=np.array([row.user for row in rows]), moments=moments, known_at=known_at, part=parts_of(moments, known_at),
        achieved=np.array([row.achieved for row in rows]), features=np.stack([row.features for row in rows]),
    )  # fmt: skip
    _check_parts(examples)
    return examples


def _check_parts(examples: GoalExamples) -> None:
    for part, name, fewest in (
        (TRAIN, "whose end had come before others were set", FEWEST_TRAIN_ROWS),
        (VALIDATION, "to select on", FEWEST_VALIDATION_ROWS),
        (HOLDOUT, "to judge on", FEWEST_VALIDATION_ROWS),
    ):
        achieved = examples.of(part).achieved
        if achieved.size < fewest:
            raise NotEnoughHistoryError(
                f"not enough history ({achieved.size} views of goals {name}, {fewest} are needed)"
            )
        rarer = int(min(achieved.sum(), (~achieved).sum()))
        if rarer < FEWEST_OF_A_CLASS:
            raise NotEnoughHistoryError(
                f"not enough history (among {achieved.size} views of goals {name} are {rarer} of one outcome, {FEWEST_OF_A_CLASS} are needed)"
            )


def parts_of(moments: FloatArray, known_at: FloatArray) -> IntArray:
    """Return the part of each row, (n,). Pure.

    Every outcome of an earlier part was known when the first row of a later part was asked for. Rows between train and
    validation, asked for before one and known after the other, serve the last fit alone; those between validation and
    holdout are left out.
    """
    parts = np.full(moments.size, LEFT_OUT)
    last = _border(moments, known_at)
    parts[moments > last] = HOLDOUT
    before = np.flatnonzero(known_at <= last)
    if before.size:
        parts[before] = BETWEEN
        first = _border(moments[before], known_at[before])
        parts[before[known_at[before] <= first]] = TRAIN
        parts[before[moments[before] > first]] = VALIDATION
    return parts


def _border(moments: FloatArray, known_at: FloatArray) -> float:
    """Return the moment that leaves most rows on both of its sides, about three before for one behind."""
    borders = np.unique(known_at)
    earlier = np.searchsorted(np.sort(known_at), borders, side="right")
    later = moments.size - np.searchsorted(np.sort(moments), borders, side="right")
    return float(borders[np.argmax(np.minimum(earlier / EARLIER_TO_LATER, later))])


def _source_ends(snapshot: Snapshot) -> dict[str, dt.datetime]:
    bounds = snapshot.kept.group_by("source").aggregate([("occurred_at", "max")])
    return {row["source"]: row["occurred_at_max"] for row in bounds.to_pylist()}


def _histories(snapshot: Snapshot, *, seed: int) -> Iterator[UserHistory]:
    """Yield all events of up to ``MOST_USERS`` users with an outcome, drawn by seed from the order of their ids."""
    events = snapshot.kept
    outcomes = events.filter(pc.is_in(events["interaction_type"], pa.array(["achieve", "fail"])))
    known = sorted(outcomes["user_id"].unique().to_pylist())
    drawn = np.random.default_rng(seed).permutation(len(known))[:MOST_USERS]
    chosen = [UUID(bytes=known[number]) for number in sorted(drawn.tolist())]
    yield from snapshot.among(chosen).users()


def decided_goals(events: Sequence[AnyBehavioralEvent]) -> list[DecidedGoal]:
    """Return the goals among one user's events that were achieved or failed, and not deleted before."""
    plans: dict[str, tuple[dt.datetime, dt.datetime | None]] = {}
    decided: dict[str, DecidedGoal] = {}
    deleted: set[str] = set()
    for event in events:
        if not isinstance(event, GoalModified) or event.goal_id in deleted | decided.keys():
            continue
        created_at, due_at = plans.get(event.goal_id, (event.occurred_at, None))
        if event.interaction_type in {"achieve", "fail"}:
            achieved = event.interaction_type == "achieve"
            decided[event.goal_id] = DecidedGoal(event.goal_id, created_at, due_at, event.occurred_at, achieved)
        elif event.interaction_type == "delete":
            deleted.add(event.goal_id)
        plans[event.goal_id] = (created_at, due_at or event.due_at)
    return list(decided.values())


def _rows(number: int, history: UserHistory, ends: Mapping[str, dt.datetime]) -> Iterator[_Row]:
    """Yield the views of one user's goals whose planned end lies before the newest event of their source."""
    events = history.events
    views: dict[dt.datetime, list[DecidedGoal]] = defaultdict(list)
    for goal in decided_goals(history.clean):
        if goal.known_at <= ends[history.clean[0].source]:
            for moment in goal.moments():
                views[moment].append(goal)
    for moment, state in replay(events, sorted(views)):
        known = {goal.goal_id: goal for goal in state.goals} if state is not None else {}
        for goal in views[moment]:
            if goal.goal_id in known:
                features = goal_features(state, known[goal.goal_id], moment)
                yield _Row(number, moment.timestamp(), goal.known_at.timestamp(), goal.achieved, features)
