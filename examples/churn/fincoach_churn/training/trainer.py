"""Candidate and evidence for churn: a logistic regression, judged by its log loss against the base rate and a rule by recency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import helper
from sklearn.linear_model import LogisticRegression

from fincoach_churn.features import CHURN_FEATURES
from fincoach_churn.gate import GATE
from fincoach_churn.runtime import RecencyRule, rates_by_recency
from fincoach_churn.training.examples import HOLDOUT, TRAIN, VALIDATION, ChurnExamples, churn_examples
from modelkit.interface import Runtime
from modelkit.training.interface import Candidate, FitContext, Snapshot
from modelkit.training.onnx_trees import model_of
from modelkit.training.splits import clusters_of
from modelkit.training.validation import CANDIDATE, CHAMPION, Evidence

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

FAMILY = "logistic_regression"
GOLDEN_ROWS = 16
SMALLEST_PROBABILITY = 1e-4
BANDS = 8


@dataclass(frozen=True, kw_only=True)
class ChurnFit:
    """A line through standardised features: probability = sigmoid((x - center) / scale · weights + offset)."""

    center: Float32Array
    scale: Float32Array
    weights: Float32Array
    offset: float

    def probabilities(self, rows: Float32Array) -> FloatArray:
        """Return the probability of return of rows (n, d), shape (n,)."""
        line = ((rows - self.center) / self.scale) @ self.weights[:, 0] + self.offset
        return np.asarray(1.0 / (1.0 + np.exp(-line.astype(np.float64))))

    def exported(self) -> bytes:
        """Return a model from features (n, d) to ``scores`` (n, 1)."""
        nodes = [
            helper.make_node("Sub", ["features", "center"], ["centered"]),
            helper.make_node("Div", ["centered", "scale"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "weights"], ["sloped"]),
            helper.make_node("Add", ["sloped", "offset"], ["line"]),
            helper.make_node("Sigmoid", ["line"], ["scores"]),
        ]
        constants = {
            "center": self.center[None, :],
            "scale": self.scale[None, :],
            "weights": self.weights,
            "offset": np.float32(self.offset),
        }
        return bytes(model_of(nodes, features=len(CHURN_FEATURES), outputs=1, constants=constants).SerializeToString())


def fit_line(examples: ChurnExamples, *, seed: int) -> ChurnFit:
    """Return the fitted line; the same rows and seed give the same numbers."""
    center = examples.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = examples.features.std(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.where(spread > 0.0, spread, np.float32(1.0))
    model = LogisticRegression(max_iter=1_000, random_state=seed)
    model.fit((examples.features - center) / scale, examples.returned)
    return ChurnFit(
        center=center, scale=scale, weights=model.coef_.T.astype(np.float32), offset=float(model.intercept_[0])
    )


class ChurnTrainer:
    """The churn trainer."""

    model_type = "churn"
    policy = GATE.policy

    def prepare(self, snapshot: Snapshot, *, seed: int) -> ChurnExamples:
        """Return users at moments of the past with what they did in the 60 days behind.

        Raises:
            NotEnoughHistoryError: when the history is too short, or too few users bought or stayed away.
        """
        return churn_examples(snapshot, seed=seed)

    def samples(self, examples: ChurnExamples) -> int:
        """Return the number of rows."""
        return int(examples.users.size)

    def fit(self, examples: ChurnExamples, context: FitContext) -> Sequence[Candidate]:
        """Return the line that was fitted on all that was known before the holdout; its score is that of the train part alone."""
        context.progress("fitting_churn", 0, 1, None)
        validation = examples.of(VALIDATION)
        before = fit_line(examples.of(TRAIN), seed=context.seed)
        final = fit_line(examples.of(TRAIN, VALIDATION), seed=context.seed)
        golden = validation.features[:: max(1, len(validation.features) // GOLDEN_ROWS)][:GOLDEN_ROWS]
        return [
            Candidate(
                name=FAMILY,
                model=final.exported(),
                feature_names=CHURN_FEATURES,
                golden_inputs=golden,
                expected=final.probabilities(golden)[:, None].astype(np.float32),
                validation_score=-float(np.mean(log_losses(before.probabilities(validation.features), validation))),
                parameters={"family": FAMILY},
            )
        ]

    def evaluate(self, examples: ChurnExamples, *, candidate: Runtime, champion: Runtime | None, seed: int) -> Evidence:
        """Return the log loss of each user on the holdout."""
        del seed
        holdout, known = examples.of(HOLDOUT), examples.of(TRAIN, VALIDATION)
        said = {CANDIDATE: probabilities_of(candidate, holdout)}
        if champion is not None:
            said[CHAMPION] = probabilities_of(champion, holdout)
        trivial = {
            "base_rate": np.full(holdout.users.size, known.returned.mean()),
            "recency_rule": rates_by_recency(holdout.features, rule_of(known))[:, 0].astype(np.float64),
        }
        return Evidence(
            metric=GATE.metric.name,
            higher_is_better=GATE.metric.higher_is_better,
            clusters=clusters_of(holdout.users),
            rows={name: log_losses(chances, holdout) for name, chances in (said | trivial).items()},
            baselines=tuple(trivial),
            reports={name: {"mean_probability": float(chances.mean())} for name, chances in (said | trivial).items()},
        )


def probabilities_of(runtime: Runtime, examples: ChurnExamples) -> FloatArray:
    """Return a version's probabilities, (n,)."""
    return runtime.scores(examples.features)[:, 0].astype(np.float64)


def log_losses(chances: FloatArray, examples: ChurnExamples) -> FloatArray:
    """Return minus the logarithm of the probability that was given to what happened, (n,)."""
    clipped = np.clip(chances, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
    return np.asarray(-np.log(np.where(examples.returned, clipped, 1.0 - clipped)))


def rule_of(known: ChurnExamples) -> RecencyRule:
    """Return the rule by recency at the rates of ``known``: the best that can be said without learning."""
    recency = known.features[:, CHURN_FEATURES.index("recency_days")]
    cuts = np.unique(np.quantile(recency, np.arange(1, BANDS) / BANDS))
    bands = np.searchsorted(cuts.astype(np.float32), recency, side="right")
    overall = known.returned.mean()
    rates = [
        float((known.returned[bands == band].sum() + overall) / ((bands == band).sum() + 1))
        for band in range(len(cuts) + 1)
    ]
    return RecencyRule(cuts=cuts.tolist(), rates=rates)
