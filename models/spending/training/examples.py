"""From a snapshot to rows: features at rolling origins, and the truth of the four weeks behind each.

Features are replayed from all events, as serving sees them; the truth is replayed from the clean ones: without duplicates,
with anomalous amounts at their limit. Each source of events has its own clock: its newest day is the earliest of
its partitions' newest moments, because what a partition has not shown yet is unknown, not nothing. The population of an
origin is fixed at the origin.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from modelkit.features import UserState, replay
from modelkit.training.clocks import known_spans
from modelkit.training.interface import NotEnoughHistoryError, Snapshot, UserHistory
from models.spending.features import SERIES_WEEKS, SPENDING_FEATURES, spending_features, weekly_series
from models.spending.training.distribution import STEPS

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DAY = dt.timedelta(days=1)
WEEK = dt.timedelta(weeks=1)
HORIZON = STEPS * WEEK
ACTIVE_WITHIN = 13 * WEEK
HOLDOUT_ORIGINS = 2
VALIDATION_ORIGINS = 2
TRAIN_ORIGINS = 26
TRAIN_STEP = 2 * WEEK
MOST_TRAIN_ROWS = 40_000
SEASON_DAYS = 350  # over a shorter span of origins a fit takes the season for a trend
FIRST_ORIGIN_AFTER = 4 * WEEK
SHORTEST_HISTORY = FIRST_ORIGIN_AFTER + 3 * HORIZON
MOST_USERS = 24_000
FEWEST_USERS = 100
FEWEST_ROWS = 200
HEADLINE_WEEKS = 3  # the headline's population: at least this many active weeks of 26

TRAIN, VALIDATION, HOLDOUT = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class SpendingExamples:
    """Rows of all parts. ``features`` (n, d) in the order of ``SPENDING_FEATURES``; ``truth`` (n, 4) weekly amounts in major units.

    ``users`` numbers the users; ``part`` is TRAIN, VALIDATION or HOLDOUT; ``origins`` are days since 1970.
    """

    features: Float32Array
    truth: Float32Array
    users: IntArray
    part: IntArray
    origins: IntArray

    def of(self, *parts: int) -> SpendingExamples:
        """Return the rows of some parts."""
        return self.only(np.isin(self.part, parts))

    def only(self, rows: npt.NDArray[np.bool_] | IntArray) -> SpendingExamples:
        """Return some rows."""
        return SpendingExamples(
            features=self.features[rows], truth=self.truth[rows], users=self.users[rows], part=self.part[rows], origins=self.origins[rows],
        )  # fmt: skip

    @property
    def total(self) -> FloatArray:
        """Return the spending of the four weeks, (n,)."""
        return np.asarray(self.truth.sum(axis=1, dtype=np.float64))

    @property
    def series(self) -> FloatArray:
        """Return the weekly series before each origin, (n, weeks)."""
        return self.features[:, :SERIES_WEEKS].astype(np.float64)

    def column(self, name: str) -> FloatArray:
        """Return one feature, (n,)."""
        return self.features[:, SPENDING_FEATURES.index(name)].astype(np.float64)

    @property
    def knows_season(self) -> bool:
        """Say whether the origins span a year, so that the season can be learned."""
        return bool(self.origins.max() - self.origins.min() >= SEASON_DAYS)

    def drawn(self, rows: int, *, seed: int) -> SpendingExamples:
        """Return up to ``rows`` of the rows, drawn by seed, in their order."""
        if self.users.size <= rows:
            return self
        return self.only(np.sort(np.random.default_rng(seed).permutation(self.users.size)[:rows]))

    @property
    def headline(self) -> npt.NDArray[np.bool_]:
        """Say which rows are judged: users with at least three active weeks of the last 26 before the origin."""
        return np.asarray(self.column("active_share_26") * 26 >= HEADLINE_WEEKS - 0.5)


def spending_examples(snapshot: Snapshot, *, seed: int) -> SpendingExamples:
    """Return the rows of a snapshot.

    Raises:
        NotEnoughHistoryError: saying how many days or users there are and how many are needed.
    """
    ends = known_spans(snapshot, "transaction_creation")
    plans = {source: origins_of(start, end) for source, (start, end) in ends.items()}
    plans = {source: plan for source, plan in plans.items() if plan}
    if not plans:
        longest = max(((end - start).days for start, end in ends.values()), default=0)
        message = f"not enough history ({longest} days of transactions, {SHORTEST_HISTORY.days} are needed)"
        raise NotEnoughHistoryError(message)
    rows = list(_rows(_chosen(snapshot, plans, seed=seed)))
    users = len({row[0] for row in rows})
    if users < FEWEST_USERS or len(rows) < FEWEST_ROWS:
        message = f"not enough history ({users} users active before an origin, {FEWEST_USERS} are needed)"
        raise NotEnoughHistoryError(message)
    return SpendingExamples(
        users=np.array([row[0] for row in rows]), part=np.array([row[1] for row in rows]), origins=np.array([row[2] for row in rows]),
        features=np.stack([row[3] for row in rows]), truth=np.stack([row[4] for row in rows]),
    )  # fmt: skip


def origins_of(start: dt.datetime, end: dt.datetime) -> tuple[tuple[dt.datetime, int], ...]:
    """Return (origin, part) oldest first, at midnights, for events known from ``start`` up to ``end``; none when that is too short.

    The four weeks behind an origin of one part are over before the first origin of the next part. Pure.
    """
    newest = _midnight(end) - HORIZON
    earliest = _midnight(start) + FIRST_ORIGIN_AFTER
    holdout = [newest - number * 2 * WEEK for number in range(HOLDOUT_ORIGINS)]
    validation = [holdout[-1] - HORIZON - number * WEEK for number in range(VALIDATION_ORIGINS)]
    train = [validation[-1] - HORIZON - number * TRAIN_STEP for number in range(TRAIN_ORIGINS)]
    if train[0] < earliest:  # a short history: one origin each
        holdout, validation, train = (
            [newest],
            [newest - HORIZON],
            [newest - 2 * HORIZON - number * TRAIN_STEP for number in range(TRAIN_ORIGINS)],
        )
    planned = [
        *((origin, HOLDOUT) for origin in holdout),
        *((origin, VALIDATION) for origin in validation),
        *((origin, TRAIN) for origin in train),
    ]
    kept = sorted((origin, part) for origin, part in planned if origin >= earliest)
    return tuple(kept) if {part for _, part in kept} == {TRAIN, VALIDATION, HOLDOUT} else ()


def _midnight(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)


Plan = tuple[tuple[dt.datetime, int], ...]


def _chosen(snapshot: Snapshot, plans: Mapping[str, Plan], *, seed: int) -> Iterator[tuple[int, UserHistory, Plan]]:
    """Yield (number, history, plan) of up to ``MOST_USERS`` users, drawn by seed from a list that is ordered by their ids."""
    known: list[UUID] = [history.user_id for history in snapshot.users("transaction_creation")]
    generator = np.random.default_rng(seed)
    drawn = set(generator.permutation(len(known))[:MOST_USERS].tolist())
    for number, history in enumerate(snapshot.users("transaction_creation")):
        plan = plans.get(history.events[0].source)
        if number in drawn and plan is not None:
            yield number, history, plan


def _rows(
    chosen: Iterator[tuple[int, UserHistory, Plan]],
) -> Iterator[tuple[int, int, int, Float32Array, Float32Array]]:
    """Yield (user, part, origin day, features, truth) of each user at each origin at which the user was active lately."""
    for number, history, plan in chosen:
        parts = dict(plan)
        moments = sorted({*parts, *(origin + HORIZON for origin in parts)})
        known: dict[dt.datetime, tuple[int, Float32Array]] = {}
        for moment, state, clean in _served_and_clean(history, moments):
            before = moment - HORIZON
            if before in known:
                part, features = known.pop(before)
                yield number, part, (before - _EPOCH).days, features, weekly_series(clean, moment, weeks=STEPS)
            if moment in parts and state is not None and state.last_debit_at >= _milliseconds(moment - ACTIVE_WITHIN):
                known[moment] = (parts[moment], spending_features(state, moment))


def _served_and_clean(
    history: UserHistory, moments: Sequence[dt.datetime]
) -> Iterator[tuple[dt.datetime, UserState | None, UserState | None]]:
    """Yield (moment, state of all events, state of the clean ones); one state for both where nothing had to be cleaned."""
    served = replay(history.events, moments)
    if history.clean is history.events:
        yield from ((moment, state, state) for moment, state in served)
        return
    for (moment, state), (_, clean) in zip(served, replay(history.clean, moments), strict=True):
        yield moment, state, clean


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _milliseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)
