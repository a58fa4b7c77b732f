"""The recommendation runtime: a value for each action, a policy over them, one action drawn with its exact propensity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from modelkit.bandit import LinearValues, Policy, Statistics, draw, propensities
from modelkit.features import STATE_FEATURES, UserState, state_features
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.manifest import PARAMETERS, LoadedArtifact, Manifest
from modelkit.scoring import Scorer, ScoringRuntime, converted, decoded_file
from schemas.errors import ArtifactRejectedError, InvalidMessageError
from schemas.vocabulary import DeadLetterReason

STATE_CONTEXT = "fincoach-state-35"
"""Name of the context schema whose row is the 35 state features; others bring their row with the request."""

_SUMMARY = (
    "current_balance",
    "total_spending",
    "total_income",
    "transaction_count",
    "savings_rate",
    "spending_velocity",
    "budget_adherence_score",
)
_TEXTS: Mapping[str, str] = {
    "continue_current_behavior": "You are on course: carry on as you do.",
    "spending_alert": "You spent {total_spending:.2f} in the last 7 days against an income of {total_income:.2f}: look at what can wait.",
    "budget_suggestion": "Set a weekly budget: at your pace of {spending_velocity:.2f} a day a week costs {total_spending:.2f}.",
    "savings_nudge": "Put something aside today: your balance is {current_balance:.2f}.",
    "positive_reinforcement": "Well done: your balance of {current_balance:.2f} gives you room.",
}


class RecommendationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest's parameters of a recommendation version."""

    policy: Policy = Policy()


class UniformValues(msgspec.Struct, frozen=True, tag_field="method", tag="uniform"):
    """Version 0: no action is better than another."""


class BanditValues(msgspec.Struct, frozen=True, kw_only=True, tag_field="method", tag="linear_bandit"):
    """LinUCB on stored statistics.

    Attributes:
        A, b: sufficient statistics of each arm over the standardised row and a constant 1, (k, d + 1, d + 1) and (k, d + 1).
        center, scale: (row - center) / scale is the standardised row.
        ridge, alpha: regularisation, and weight of the uncertainty; 0 serves the expected reward.
    """

    A: list[list[list[float]]]
    b: list[list[float]]
    center: list[float]
    scale: list[float]
    ridge: float = 1.0
    alpha: float = 0.0

    @classmethod
    def of(
        cls, statistics: Statistics, center: FloatArray, scale: FloatArray, *, ridge: float = 1.0, alpha: float = 0.0
    ) -> BanditValues:
        """Return the parameters that serve ``statistics``."""
        return cls(
            A=statistics.A.tolist(),
            b=statistics.b.tolist(),
            center=center.tolist(),
            scale=scale.tolist(),
            ridge=ridge,
            alpha=alpha,
        )


RecommendationParameters = UniformValues | BanditValues
_settings = msgspec.json.Decoder(RecommendationSettings)
_parameters: msgspec.json.Decoder[RecommendationParameters] = msgspec.json.Decoder(RecommendationParameters)


def bandit_context(rows: FloatArray, center: FloatArray, scale: FloatArray) -> FloatArray:
    """Return what the bandit sees of rows (n, d): standardised, with a constant 1 at the end, shape (n, d + 1)."""
    standard = (rows - center) / scale
    return np.concatenate([standard, np.ones((len(rows), 1), dtype=np.float32)], axis=1).astype(np.float32)


class RecommendationRuntime(ScoringRuntime):
    """Scores are values of actions; the answer is one action, its text and the propensities of all."""

    model_type = "recommendation"
    feature_names = STATE_FEATURES

    def __init__(self, loaded: LoadedArtifact) -> None:
        super().__init__(loaded)
        self._policy = converted(loaded.manifest.parameters, _settings).policy

    @classmethod
    def check_features(cls, manifest: Manifest) -> None:
        """Accept the manifest or raise: the 35 features in the host's context, any names in another; actions that a floor fits.

        Raises:
            ArtifactRejectedError: naming what does not fit.
        """
        if manifest.context_schema == STATE_CONTEXT:
            super().check_features(manifest)
        if not manifest.actions or manifest.action_set is None or manifest.context_schema is None:
            raise ArtifactRejectedError(
                "a recommendation manifest names its action set, its actions and its context schema"
            )
        if manifest.propensity_floor * len(manifest.actions) > 1.0:
            raise ArtifactRejectedError(
                f"{len(manifest.actions)} actions cannot each keep a propensity of {manifest.propensity_floor}"
            )

    @classmethod
    def baseline_scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return equal values, or those of the bandit."""
        parameters = decoded_file(files, PARAMETERS, _parameters)
        if isinstance(parameters, BanditValues):
            return _bandit_scorer(parameters)
        arms = len(manifest.actions)
        return lambda rows: np.zeros((len(rows), arms), dtype=np.float32)

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return the 35 state features.

        Raises:
            InvalidMessageError: for a version over another context, whose row must come with the request.
        """
        if self.manifest.context_schema != STATE_CONTEXT:
            raise InvalidMessageError(
                DeadLetterReason.MISSING_FIELD,
                f"this version needs the features of context {self.manifest.context_schema!r} in the request",
            )
        return state_features(state, request.as_of)

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return one action, drawn by ``request.randomness`` with the probability that the answer names."""
        values = np.array([self.score_row(features)])
        chances = [
            float(chance) for chance in propensities(values, self._policy, floor=self.manifest.propensity_floor)[0]
        ]
        action = draw(chances, request.randomness)
        return Answer(
            body=self._body(features, request, action=action, confidence=chances[action]),
            action_set=self.manifest.action_set,
            action=action,
            propensity=chances[action],
            propensities=tuple(chances),
        )

    def _body(
        self, features: FloatArray, request: PredictionRequest, *, action: int, confidence: float
    ) -> dict[str, object]:
        name = self.manifest.actions[action]
        row = dict(zip(self.manifest.feature_names, features.tolist(), strict=True))
        return {
            "action_id": action,
            "action_type": name,
            "recommendation": _text(name, row),
            "confidence": round(confidence, 4),
            "state_summary": {key: round(row[key], 4) for key in _SUMMARY if key in row},
            "generated_at": request.as_of.isoformat(),
        }


def _bandit_scorer(parameters: BanditValues) -> Callable[[FloatArray], FloatArray]:
    solved = LinearValues(Statistics(np.array(parameters.A), np.array(parameters.b)), ridge=parameters.ridge)
    center, scale = np.array(parameters.center, dtype=np.float32), np.array(parameters.scale, dtype=np.float32)

    def score(rows: FloatArray) -> FloatArray:
        context = bandit_context(rows, center, scale)
        if parameters.alpha == 0.0:
            return solved.means(context).astype(np.float32)
        return solved.upper_bounds(context, alpha=parameters.alpha).astype(np.float32)

    return score


def _text(action: str, row: Mapping[str, float]) -> str:
    """Return the sentence for the host's actions, the action's own name for others."""
    template = _TEXTS.get(action)
    return template.format_map(row) if template is not None and "current_balance" in row else action
