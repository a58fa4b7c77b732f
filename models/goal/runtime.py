"""The goal runtime: the probability that a goal is met, when, what endangers it and what would help."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec
import numpy as np

from modelkit.features import UserState
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.manifest import FEATURES, PARAMETERS, LoadedArtifact, Manifest
from modelkit.scoring import Scorer, ScoringRuntime, decoded_file
from models.goal.features import GOAL_FEATURES, goal_features, goal_in
from schemas.errors import ArtifactRejectedError, InvalidMessageError
from schemas.vocabulary import DeadLetterReason

_COLUMN = {name: index for index, name in enumerate(GOAL_FEATURES)}
_SMALLEST_RISK = 0.01
_RISKS_NAMED = 3
_FARTHEST_DAYS = 3_650.0

# Columns that a user can influence; demographic and merely descriptive ones give no advice.
RISKS: Mapping[str, tuple[str, str]] = {
    "goal_spent_share": ("much of the amount is spent already", "Spend nothing on what can wait until the goal ends."),
    "goal_spent_ahead": (
        "spending runs ahead of the time that has passed",
        "Halve what you spend a day until you are back on course.",
    ),
    "goal_projected_share": (
        "at the usual pace the amount will be exceeded",
        "Set a weekly limit of what is left divided by the weeks left.",
    ),
    "goal_amount_per_day": ("much is to be reached each day", "Move the end of the goal, or split it."),
    "goal_savings_gap": ("you put less aside a day than the goal needs", "Raise your daily savings by the gap."),
    "goal_work_missed_share": (
        "work that was due has not been handed in",
        "Hand in what is open, the next due piece first.",
    ),
    "goal_late_days_mean": ("work is handed in late", "Start each piece of work a week before it is due."),
    "goal_score_mean": ("scores so far are low", "Go through the feedback of the pieces with the lowest scores."),
    "goal_score_last": ("the last score was low", "Go through the feedback of the last piece."),
    "goal_progress": ("little progress so far", "Take one small step this week."),
    "past_achieved_share": ("earlier goals were often missed", "Choose a smaller goal to start with."),
    "spending_velocity": ("recent daily spending is high", "Plan your spending for the coming week."),
    "debt_indicator": ("the balance has been negative", "Bring the balance above zero first."),
    "spending_volatility": ("daily spending varies widely", "Spread large purchases over the month."),
}


class GoalBaseline(msgspec.Struct, frozen=True, kw_only=True, tag_field="method", tag="base_rate"):
    """Version 0: the share of goals that are met, by kind, and two rules that need no learning.

    A budget that is spent is lost (``lost_rate``); a budget that the usual pace exceeds, or work of which over half was
    missed, halves the rate.
    """

    base_rate: float
    by_kind: dict[str, float] = {}
    lost_rate: float = 0.02


class FeatureNotes(msgspec.Struct, frozen=True, kw_only=True):
    """``features.json``: the row of a typical user (medians of the training set), against which risks are found; null: the answer names none."""

    names: tuple[str, ...] = GOAL_FEATURES
    reference: list[float] | None = None


def base_rates(rows: FloatArray, parameters: GoalBaseline) -> FloatArray:
    """Return the baseline's probabilities for rows of :data:`GOAL_FEATURES`, shape (n, 1)."""
    rates = np.full(len(rows), parameters.base_rate)
    for kind, rate in parameters.by_kind.items():
        rates[rows[:, _COLUMN[f"goal_is_{kind}"]] > 0.0] = rate
    budget = rows[:, _COLUMN["goal_is_budget"]] > 0.0
    rates[budget & (rows[:, _COLUMN["goal_projected_share"]] > 1.0)] *= 0.5
    rates[rows[:, _COLUMN["goal_work_missed_share"]] > 0.5] *= 0.5  # noqa: PLR2004 - over half
    rates[budget & (rows[:, _COLUMN["goal_spent_share"]] > 1.0)] = parameters.lost_rate
    return rates[:, None].astype(np.float32)


_baseline = msgspec.json.Decoder(GoalBaseline)
_notes = msgspec.json.Decoder(FeatureNotes)


class GoalRuntime(ScoringRuntime):
    """Scores are probabilities, one column."""

    model_type = "goal"
    feature_names = GOAL_FEATURES

    def __init__(self, loaded: LoadedArtifact) -> None:
        super().__init__(loaded)
        if len(self._golden.outputs[0]) != 1:
            raise ArtifactRejectedError("a goal version answers one probability; name it by output_column")
        self._reference = _reference(loaded.files)
        self._risks = [_COLUMN[name] for name in RISKS]

    @classmethod
    def baseline_scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return the base rates."""
        del manifest
        parameters = decoded_file(files, PARAMETERS, _baseline)
        return lambda rows: base_rates(rows, parameters)

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return the row of the goal that the request names, describes, or else the newest open one.

        Raises:
            InvalidMessageError: when the described goal is malformed.
        """
        try:
            goal = goal_in(state, request.goal_id, request.goal, as_of=request.as_of)
        except msgspec.ValidationError as error:
            raise InvalidMessageError(DeadLetterReason.INVALID_FIELD, f"goal: {error}") from error
        return goal_features(state, goal, request.as_of)

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return the probability, the date at the pace so far, and the risks by which the same model lowers it."""
        rows = features[None, :] if self._reference is None else self._with_repairs(features, self._reference)
        probability, *repaired = self.finite_scores(rows)[:, 0].tolist()
        risks = self._risks_in([chance - probability for chance in repaired])
        completion = _completion(features, request.as_of)
        return Answer(
            body={
                "goal_id": request.goal_id,
                "probability": round(min(max(probability, 0.0), 1.0), 4),
                "expected_completion_date": completion.isoformat(timespec="seconds")
                if completion is not None
                else None,
                "risk_factors": [{"feature": name, "factor": RISKS[name][0]} for name in risks],
                "improvement_suggestions": [RISKS[name][1] for name in risks],
            }
        )

    def _with_repairs(self, features: FloatArray, reference: FloatArray) -> FloatArray:
        """Return the row, then for each risk the row with that column as a typical user has it."""
        rows = np.repeat(features[None, :], 1 + len(self._risks), axis=0)
        repaired = np.arange(1, len(rows))
        rows[repaired, self._risks] = reference[self._risks]
        return rows

    def _risks_in(self, gains: list[float]) -> list[str]:
        ranked = sorted(zip(gains, RISKS, strict=False), key=lambda pair: -pair[0])
        return [name for gain, name in ranked[:_RISKS_NAMED] if gain >= _SMALLEST_RISK]


def _reference(files: Mapping[str, bytes]) -> FloatArray | None:
    if FEATURES not in files:
        return None
    reference = decoded_file(files, FEATURES, _notes).reference
    if reference is None:
        return None
    if len(reference) != len(GOAL_FEATURES):
        raise ArtifactRejectedError(
            f"the reference row has {len(reference)} columns, not {len(GOAL_FEATURES)}", file=FEATURES
        )
    return np.array(reference, dtype=np.float32)


def _completion(features: FloatArray, as_of: dt.datetime) -> dt.datetime | None:
    """Return when the goal is reached at its pace so far where its progress is known, else its end; None beyond ten years."""
    progress = float(features[_COLUMN["goal_progress"]])
    total, share = float(features[_COLUMN["goal_days_total"]]), float(features[_COLUMN["goal_time_share"]])
    days = float(features[_COLUMN["goal_days_left"]])
    if 0.0 < progress < 1.0 and share > 0.0:
        days = total * share * (1.0 - progress) / progress
    return as_of + dt.timedelta(days=days) if days <= _FARTHEST_DAYS else None
