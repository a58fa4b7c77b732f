"""The churn runtime: the probability that a user buys again within 60 days."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from fincoach_churn.features import CHURN_FEATURES, NEVER_DAYS, churn_features
from modelkit.features import UserState
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.manifest import PARAMETERS, LoadedArtifact, Manifest
from modelkit.scoring import Scorer, ScoringRuntime, decoded_file
from schemas.errors import ArtifactRejectedError

HORIZON_DAYS = 60
LIKELY, UNLIKELY = 0.5, 0.2
_RECENCY = CHURN_FEATURES.index("recency_days")


class RecencyRule(msgspec.Struct, frozen=True, kw_only=True, tag_field="method", tag="recency_rule"):
    """A rule that needs no learning: the rate of return by days since the last purchase; ``cuts`` ascend, one rate more than cuts."""

    cuts: list[float]
    rates: list[float]


def rates_by_recency(rows: FloatArray, rule: RecencyRule) -> FloatArray:
    """Return the rule's probabilities for rows of :data:`CHURN_FEATURES`, shape (n, 1)."""
    bands = np.searchsorted(np.array(rule.cuts, dtype=np.float32), rows[:, _RECENCY], side="right")
    return np.array(rule.rates, dtype=np.float32)[bands][:, None]


_rule = msgspec.json.Decoder(RecencyRule)


class ChurnRuntime(ScoringRuntime):
    """Scores are probabilities, one column."""

    model_type = "churn"
    feature_names = CHURN_FEATURES

    def __init__(self, loaded: LoadedArtifact) -> None:
        super().__init__(loaded)
        if len(self._golden.outputs[0]) != 1:
            raise ArtifactRejectedError("a churn version answers one probability")

    @classmethod
    def baseline_scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return the rule by recency."""
        del manifest
        rule = decoded_file(files, PARAMETERS, _rule)
        return lambda rows: rates_by_recency(rows, rule)

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return how lately, how often and for how much the user bought."""
        return churn_features(state, request.as_of)

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return the probability, and what it means in a word."""
        (probability,) = self.score_row(features)
        recency = float(features[_RECENCY])
        return Answer(
            body={
                "probability_of_return": round(min(max(probability, 0.0), 1.0), 4),
                "horizon_days": HORIZON_DAYS,
                "days_since_purchase": round(recency) if recency < NEVER_DAYS else None,
                "outlook": "likely" if probability >= LIKELY else "unlikely" if probability < UNLIKELY else "open",
                "predicted_at": request.as_of.isoformat(),
            }
        )
