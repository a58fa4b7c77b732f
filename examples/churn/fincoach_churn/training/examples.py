"""From a snapshot to rows: users at moments of the past, and whether they bought within the 60 days behind.

Rows are made by the reducer that serves, from all events; outcomes are read from the clean ones. The 60 days go by the clock
of the events' source, never by a wall clock, and the 60 days of one part are over before the first moment of the next.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fincoach_churn.features import churn_features
from fincoach_churn.runtime import HORIZON_DAYS
from fincoach_events.events import TransactionCreated
from modelkit.features import replay
from modelkit.training.clocks import known_spans
from modelkit.training.interface import NotEnoughHistoryError, Snapshot, UserHistory

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TRAIN, VALIDATION, HOLDOUT = 0, 1, 2
TRANSACTION = "transaction_creation"
HORIZON = dt.timedelta(days=HORIZON_DAYS)
TRAIN_MOMENTS, TRAIN_STEP = 6, dt.timedelta(days=30)
FIRST_AFTER = dt.timedelta(days=60)
SHORTEST_HISTORY = FIRST_AFTER + 3 * HORIZON
MOST_USERS = 8_000
FEWEST_USERS, FEWEST_OF_AN_OUTCOME = 100, 20

Plan = Mapping[dt.datetime, int]


@dataclass(frozen=True, kw_only=True)
class ChurnExamples:
    """Rows of all parts: ``features`` (n, 15) in the order of ``CHURN_FEATURES``; ``returned``, ``users``, ``part`` (n,)."""

    features: Float32Array
    returned: BoolArray
    users: IntArray
    part: IntArray

    def of(self, *parts: int) -> ChurnExamples:
        """Return the rows of some parts."""
        rows = np.isin(self.part, parts)
        return ChurnExamples(
            features=self.features[rows], returned=self.returned[rows], users=self.users[rows], part=self.part[rows]
        )


def churn_examples(snapshot: Snapshot, *, seed: int) -> ChurnExamples:
    """Return the rows of a snapshot.

    Raises:
        NotEnoughHistoryError: saying how many days, users or outcomes there are and how many are needed.
    """
    spans = known_spans(snapshot, TRANSACTION)
    plans = {source: plan for source, (start, end) in spans.items() if (plan := moments_of(start, end))}
    if not plans:
        longest = max(((end - start).days for start, end in spans.values()), default=0)
        message = f"not enough history ({longest} days of transactions, {SHORTEST_HISTORY.days} are needed)"
        raise NotEnoughHistoryError(message)
    rows = [row for number, history in _drawn(snapshot, seed=seed) for row in _rows(number, history, plans)]
    _check({number for number, *_ in rows}, [(part, returned) for _, part, returned, _ in rows])
    return ChurnExamples(
        users=np.array([row[0] for row in rows]),
        part=np.array([row[1] for row in rows]),
        returned=np.array([row[2] for row in rows]),
        features=np.stack([row[3] for row in rows]),
    )


def moments_of(start: dt.datetime, end: dt.datetime) -> Plan:
    """Return when users are looked at, and for which part, where events are known from ``start`` to ``end``; none if that is too short.

    The newest moment whose 60 days are over judges, the one 60 days before selects, those before that fit.
    """
    newest = end.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - HORIZON
    fitting = [newest - 2 * HORIZON - number * TRAIN_STEP for number in range(TRAIN_MOMENTS)]
    kept = [moment for moment in fitting if moment >= start + FIRST_AFTER]
    return {**dict.fromkeys(reversed(kept), TRAIN), newest - HORIZON: VALIDATION, newest: HOLDOUT} if kept else {}


def _drawn(snapshot: Snapshot, *, seed: int) -> Iterator[tuple[int, UserHistory]]:
    """Yield up to ``MOST_USERS`` users with their numbers, drawn by seed from the order of their ids."""
    users = sum(1 for _ in snapshot.users(TRANSACTION))
    chosen = set(np.random.default_rng(seed).permutation(users)[:MOST_USERS].tolist())
    for number, history in enumerate(snapshot.users(TRANSACTION)):
        if number in chosen:
            yield number, history


def _rows(
    number: int, history: UserHistory, plans: Mapping[str, Plan]
) -> Iterator[tuple[int, int, bool, Float32Array]]:
    """Yield (user, part, returned, features) for each moment at which the user had bought before."""
    plan = plans.get(history.events[0].source, {})
    bought = sorted(
        event.occurred_at
        for event in history.clean
        if isinstance(event, TransactionCreated) and event.transaction_type == "debit"
    )
    for moment, state in replay(history.events, plan):
        if state is not None and state.debits > 0:
            following = bisect_left(bought, moment)
            returned = following < len(bought) and bought[following] < moment + HORIZON
            yield number, plan[moment], returned, churn_features(state, moment)


def _check(users: set[int], outcomes: list[tuple[int, bool]]) -> None:
    if len(users) < FEWEST_USERS:
        raise NotEnoughHistoryError(f"not enough history ({len(users)} users, {FEWEST_USERS} are needed)")
    for part, name in ((TRAIN, "to fit on"), (VALIDATION, "to select on"), (HOLDOUT, "to judge on")):
        for wanted, said in ((True, "returned"), (False, "stayed away")):
            found = outcomes.count((part, wanted))
            if found < FEWEST_OF_AN_OUTCOME:
                message = f"not enough history ({found} users who {said} {name}, {FEWEST_OF_AN_OUTCOME} are needed)"
                raise NotEnoughHistoryError(message)
