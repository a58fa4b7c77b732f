"""From a snapshot to logged recommendations: the features as served, the action, its exact propensity, what came back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelkit.features import REDUCER_VERSION, STATE_FEATURES
from modelkit.training.interface import NotEnoughHistoryError, Snapshot
from modelkit.training.off_policy import Log
from modelkit.training.splits import Split, clusters_of, time_ordered
from models.recommendation.actions import DEFAULT_ACTION_SET, RECOMMENDATION_ACTIONS
from models.recommendation.runtime import STATE_CONTEXT
from models.recommendation.training.implicit import ImplicitSignals, page_seconds
from models.recommendation.training.rewards import HIGHEST, LOWEST, answers_within, reward_of, settled

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ACTIONS = RECOMMENDATION_ACTIONS
ACTION_SET = DEFAULT_ACTION_SET
CONTEXT_SCHEMA = STATE_CONTEXT
ARMS = len(ACTIONS)
FEWEST_ROWS = 200
# Two policies differ on few rows, and only these tell them apart: the holdout gets more rows than is usual.
VALIDATION_SHARE, HOLDOUT_SHARE = 0.15, 0.3
_CLICKED, _HELPFUL, _NOT_HELPFUL = "click", "helpful", "not_helpful"


@dataclass(frozen=True, kw_only=True)
class LoggedRecommendations:
    """Rows in the order in which they were served.

    ``features`` (n, 35); ``log`` holds actions, propensities and rewards (n,); ``users`` numbers the users; ``is_new`` marks
    what came back after the champion's cut; ``clicked``, ``helpful`` and ``not_helpful`` are reported apart.
    ``implicit`` (n,) is what behaviour without an answer adds in a fit; ``unanswered`` (seen, no answer) and ``page_seconds``
    (NaN: not measured) record that behaviour. ``log.rewards`` holds answers alone: judge by it.
    """

    features: Float32Array
    log: Log
    users: IntArray
    is_new: BoolArray
    clicked: BoolArray
    helpful: BoolArray
    not_helpful: BoolArray
    implicit: FloatArray
    unanswered: BoolArray
    page_seconds: FloatArray

    @property
    def taught(self) -> FloatArray:
        """Return the rewards that a fit sees, (n,): those of answers, and in their absence the implicit ones."""
        return np.asarray(np.clip(self.log.rewards + self.implicit, LOWEST, HIGHEST))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.users)

    def only(self, rows: IntArray | BoolArray) -> LoggedRecommendations:
        """Return some rows."""
        taken: dict[str, Any] = {
            field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "log"
        }
        return LoggedRecommendations(log=self.log.only(rows), **taken)


@dataclass(frozen=True, kw_only=True)
class RecommendationExamples:
    """All rows, and which of them fit, select and judge."""

    rows: LoggedRecommendations
    split: Split

    @property
    def train(self) -> LoggedRecommendations:
        """Return the oldest part."""
        return self.rows.only(self.split.train)

    @property
    def validation(self) -> LoggedRecommendations:
        """Return the part that selects among candidates."""
        return self.rows.only(self.split.validation)

    @property
    def known(self) -> LoggedRecommendations:
        """Return everything before the holdout."""
        return self.rows.only(np.concatenate([self.split.train, self.split.validation]))

    @property
    def holdout(self) -> LoggedRecommendations:
        """Return the newest part, which judges."""
        return self.rows.only(self.split.holdout)


def recommendation_examples(
    snapshot: Snapshot,
    *,
    reward_weights: Mapping[str, float],
    implicit_weights: Mapping[str, float],
    window: dt.timedelta,
) -> RecommendationExamples:
    """Return the settled rows of the default action set, with their time-ordered parts.

    Raises:
        NotEnoughHistoryError: saying how many there are and how many are needed.
    """
    usable = _usable(snapshot.kept_feedback)
    if usable.num_rows:
        usable = usable.filter(pa.array(_settled(usable, snapshot.moments.last, window)))
    if usable.num_rows < FEWEST_ROWS:
        raise NotEnoughHistoryError(
            f"not enough history ({usable.num_rows} recommendations that were seen or answered, {FEWEST_ROWS} are needed)",
            rows=usable.num_rows, needed=FEWEST_ROWS,
        )  # fmt: skip
    split = time_ordered(
        _seconds(usable["predicted_at"]), validation_share=VALIDATION_SHARE, holdout_share=HOLDOUT_SHARE
    )
    if min(part.size for part in split) == 0:
        raise NotEnoughHistoryError("not enough history (all recommendations were served at one moment)")
    seconds = page_seconds(snapshot, usable["prediction_id"].to_pylist(), usable["user_id"].to_pylist())
    answers = _answers(usable, window)
    signals = ImplicitSignals(_unanswered(usable, answers), seconds)
    rows = _rows(usable, answers, reward_weights, signals=signals, implicit=signals.taught(implicit_weights))
    return RecommendationExamples(rows=rows, split=split)


def _usable(feedback: pa.Table) -> pa.Table:
    """Return what was served over our actions and features with a known propensity; nothing else can be judged."""
    return feedback.filter(
        (pc.field("action_set") == ACTION_SET)
        & (pc.field("reducer_version") == REDUCER_VERSION)
        & (pc.field("propensity") > 0.0)
        & (pc.field("action") >= 0)
        & (pc.field("action") < ARMS)
        & (pc.list_value_length(pc.field("features")) == len(STATE_FEATURES))
    )


def _settled(usable: pa.Table, end: dt.datetime, window: dt.timedelta) -> BoolArray:
    firsts = np.array([moments[0].timestamp() if moments else np.nan for moments in usable["responded_at"].to_pylist()])
    return settled(_starts(usable), firsts, end=end.timestamp(), window_seconds=window.total_seconds())


def _starts(usable: pa.Table) -> FloatArray:
    """Return when each was seen (where no view came: first answered), in seconds."""
    shown, answered = usable["shown_at"].to_pylist(), usable["responded_at"].to_pylist()
    return np.array([
        (view or moments[0]).timestamp() for view, moments in zip(shown, answered, strict=True)
    ])  # fmt: skip


def _seconds(moments: pa.ChunkedArray) -> FloatArray:
    return np.asarray(moments.cast(pa.int64()).to_numpy(), dtype=np.float64) / 1e6


def _answers(usable: pa.Table, window: dt.timedelta) -> list[frozenset[str]]:
    """Return for each row the kinds of answers that came within its window."""
    return [
        answers_within(kinds, [moment.timestamp() for moment in at], start=start, window_seconds=window.total_seconds())
        for kinds, at, start in zip(
            usable["responses"].to_pylist(), usable["responded_at"].to_pylist(), _starts(usable), strict=True
        )
    ]


def _unanswered(usable: pa.Table, answers: Sequence[frozenset[str]]) -> BoolArray:
    """Say which rows (n,) have a view and no answer."""
    seen = usable["shown_at"].is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(seen & np.array([not kinds for kinds in answers]))


def _rows(
    usable: pa.Table, answers: Sequence[frozenset[str]], weights: Mapping[str, float], *, signals: ImplicitSignals, implicit: FloatArray
) -> LoggedRecommendations:  # fmt: skip
    return LoggedRecommendations(
        features=np.array(usable["features"].to_pylist(), dtype=np.float32),
        log=Log(
            actions=usable["action"].to_numpy().astype(np.int64),
            propensities=usable["propensity"].to_numpy().astype(np.float64),
            rewards=np.array([reward_of(kinds, weights) for kinds in answers]),
        ),
        users=clusters_of(np.array([user.hex() for user in usable["user_id"].to_pylist()])),
        is_new=np.asarray(usable["is_new"].to_pylist(), dtype=np.bool_),
        clicked=np.array([_CLICKED in kinds for kinds in answers]),
        helpful=np.array([_HELPFUL in kinds for kinds in answers]),
        not_helpful=np.array([_NOT_HELPFUL in kinds for kinds in answers]),
        implicit=implicit,
        unanswered=signals.is_unanswered,
        page_seconds=signals.page_seconds,
    )
