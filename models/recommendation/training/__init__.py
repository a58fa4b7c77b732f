"""Recommendations: conservative Q-learning and a linear bandit on what was shown and what came back, judged off-policy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from modelkit.interface import Runtime
from modelkit.training.interface import Candidate, FitContext, Snapshot
from modelkit.training.validation import Evidence
from models.recommendation.gate import GATE
from models.recommendation.settings import RecommendationTrainingSettings
from models.recommendation.training.candidates import candidates_of
from models.recommendation.training.evidence import evidence_of
from models.recommendation.training.examples import RecommendationExamples, recommendation_examples
from schemas.vocabulary import ModelType

__all__ = ["TRAINER", "ModelType", "RecommendationTrainer"]


class RecommendationTrainer:
    """Fits policies over FinCoach's five actions; the headline is the doubly robust expected reward."""

    model_type = "recommendation"
    policy = GATE.policy

    def __init__(self, settings: RecommendationTrainingSettings) -> None:
        self._settings = settings

    def prepare(self, snapshot: Snapshot, *, seed: int) -> RecommendationExamples:
        """Return the logged recommendations with their parts; nothing is drawn, so ``seed`` changes nothing."""
        del seed
        window = dt.timedelta(hours=self._settings.recommendation_reward_window_hours)
        return recommendation_examples(
            snapshot,
            reward_weights=self._settings.recommendation_reward_weights,
            implicit_weights=self._settings.recommendation_implicit_weights,
            window=window,
        )

    def samples(self, examples: RecommendationExamples) -> int:
        """Return the number of rows."""
        return len(examples.rows)

    def fit(self, examples: RecommendationExamples, context: FitContext) -> Sequence[Candidate]:
        """Return the CQL candidates and the bandit."""
        settings = self._settings
        weights = {
            "rewards": settings.recommendation_reward_weights,
            "implicit": settings.recommendation_implicit_weights,
        }
        return candidates_of(examples, context, gamma=settings.recommendation_gamma, weights=weights)

    def evaluate(
        self, examples: RecommendationExamples, *, candidate: Runtime, champion: Runtime | None, seed: int
    ) -> Evidence:
        """Return the off-policy values on the holdout; nothing is drawn, so ``seed`` changes nothing."""
        del seed
        return evidence_of(
            examples,
            candidate=candidate,
            champion=champion,
            most_effective=self._settings.recommendation_effective_samples,
        )


TRAINER = RecommendationTrainer(RecommendationTrainingSettings())
