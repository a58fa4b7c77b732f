"""Candidates and evidence for spending: one predictive distribution of the next four weeks, judged by its CRPS.

No forecast beats the plain mean on squared error by more than noise, or a forecast of 0 by much on absolute error: real
gains are in the distribution. The headline is the CRPS of the four weeks' total among users with at least three
active weeks of 26, against the best trivial forecast for that metric; the other metrics are reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelkit.interface import Runtime
from modelkit.training.interface import Candidate, FitContext, NotEnoughHistoryError, Snapshot
from modelkit.training.splits import clusters_of
from modelkit.training.validation import CANDIDATE, CHAMPION, Evidence
from models.spending.features import SPENDING_FEATURES
from models.spending.forecasts import FORECASTS
from models.spending.gate import GATE
from models.spending.runtime import MEAN_OUTPUTS
from models.spending.training.distribution import (
    LEVELS,
    QUANTILES_FROM,
    STEPS,
    crps,
    own_sums_as_quantiles,
    point_as_quantiles,
    reports,
)
from models.spending.training.examples import (
    HOLDOUT,
    MOST_TRAIN_ROWS,
    TRAIN,
    VALIDATION,
    WEEK,
    SpendingExamples,
    spending_examples,
)
from models.spending.training.network import checkpoint_of, export_network, fit_network, scores_of, weights_in
from models.spending.training.trees import export_blend, export_trees, fit_trees, tree_scores

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

OUTPUTS = (*MEAN_OUTPUTS, "will_buy", *(f"total_q{round(level * 100):02d}" for level in LEVELS))
COVERAGE = 0.8
GOLDEN_ROWS = 16
FULL_PASSES, FULL_RATE = 4, 1e-3
FINE_PASSES, FINE_RATE = 2, 5e-4
NEWEST_WEEKS = 8
BASELINE_MEANS = "mean_26_weeks"
FINE_TUNED_LSTM = "fine_tuned_lstm"

Scores = Callable[[Float32Array], Float32Array]


class SpendingTrainer:
    """The spending trainer."""

    model_type = "spending"
    policy = GATE.policy

    def prepare(self, snapshot: Snapshot, *, seed: int) -> SpendingExamples:
        """Return features and truths at rolling origins.

        Raises:
            NotEnoughHistoryError: when the history is too short or too few users are active.
        """
        examples = spending_examples(snapshot, seed=seed)
        for part, name in ((VALIDATION, "validation"), (HOLDOUT, "holdout")):
            users = np.unique(examples.of(part).only(examples.of(part).headline).users).size
            if users < self.policy.fewest_clusters:
                raise NotEnoughHistoryError(
                    f"not enough history ({users} users with three active weeks on the {name}, {self.policy.fewest_clusters} are needed)"
                )
        return examples

    def samples(self, examples: SpendingExamples) -> int:
        """Return the number of rows."""
        return int(examples.users.size)

    def fit(self, examples: SpendingExamples, context: FitContext) -> Sequence[Candidate]:
        """Return the LSTM (fitted anew, and fine-tuned where the champion left its weights), the trees and the blend."""
        train = examples.of(TRAIN).drawn(MOST_TRAIN_ROWS, seed=context.seed)
        validation = examples.of(VALIDATION)
        name, network = _best_network(train, validation, context)
        checkpoint = checkpoint_of(network)
        exported = export_network(network)
        fitted: list[tuple[str, bytes, Scores]] = [(name, exported, lambda rows: scores_of(network, rows))]
        trees = fit_trees(train, seed=context.seed)
        if trees is not None:
            tree_model = export_trees(trees)
            fitted += [
                ("lightgbm_hurdle", tree_model, lambda rows: tree_scores(trees, rows)),
                (
                    f"blend_of_{name}_and_lightgbm",
                    export_blend(exported, tree_model),
                    lambda rows: np.float32(0.5) * (scores_of(network, rows) + tree_scores(trees, rows)),
                ),
            ]
        context.progress("calibrating", 1, 1, None)
        return [
            _candidate(family, model, predict, validation=validation, checkpoint=checkpoint)
            for family, model, predict in fitted
        ]

    def evaluate(
        self, examples: SpendingExamples, *, candidate: Runtime, champion: Runtime | None, seed: int
    ) -> Evidence:
        """Return the CRPS of each row of the headline's population on the holdout."""
        del seed
        holdout = examples.of(HOLDOUT)
        judged = holdout.only(holdout.headline)
        forecasts = {CANDIDATE: served_layout(candidate, judged)}
        if champion is not None:
            forecasts[CHAMPION] = served_layout(champion, judged)
        trivial = trivial_forecasts(judged, examples.of(TRAIN))
        forecasts |= trivial
        cap = float(np.quantile(examples.of(TRAIN).total, 0.999))
        before = judged.series[:, -STEPS:].sum(axis=1)
        return Evidence(
            metric=GATE.metric.name, higher_is_better=GATE.metric.higher_is_better, clusters=clusters_of(judged.users), baselines=tuple(trivial),
            rows={name: crps(scores[:, QUANTILES_FROM:], judged.total) for name, scores in forecasts.items()},
            reports={name: reports(scores, judged.total, before, cap=cap) for name, scores in forecasts.items()},
        )  # fmt: skip


def _best_network(train: SpendingExamples, validation: SpendingExamples, context: FitContext) -> tuple[str, Any]:
    """Return (name, network): fitted anew or fine-tuned from the champion's weights, whichever validates better."""
    fits = {
        "residual_lstm": fit_network(
            train, seed=context.seed, passes=FULL_PASSES, learning_rate=FULL_RATE, progress=_phase_progress(context, "fitting_lstm")
        )
    }  # fmt: skip
    start = weights_in(context.champion.checkpoint) if context.champion else None
    if start is not None:
        fits[FINE_TUNED_LSTM] = fit_network(
            newest_and_replay(train, seed=context.seed), seed=context.seed, passes=FINE_PASSES, learning_rate=FINE_RATE, start=start,
            progress=_phase_progress(context, "fine_tuning_lstm"),
        )  # fmt: skip
    return min(fits.items(), key=lambda item: headline_crps(lambda rows: scores_of(item[1], rows), validation))


def _phase_progress(context: FitContext, phase: str) -> Callable[[int, int, float], None]:
    return lambda step, steps, loss: context.progress(phase, step, steps, loss)


def newest_and_replay(train: SpendingExamples, *, seed: int) -> SpendingExamples:
    """Return the rows of the newest eight weeks of origins with as many older ones, drawn by seed."""
    newest = train.origins > train.origins.max() - NEWEST_WEEKS * WEEK.days
    older = np.flatnonzero(~newest)
    replay = np.random.default_rng(seed).permutation(older)[: int(newest.sum())]
    return train.only(np.sort(np.concatenate([np.flatnonzero(newest), replay])))


def headline_crps(predict: Scores, examples: SpendingExamples) -> float:
    """Return the mean CRPS among the headline's population."""
    judged = examples.only(examples.headline)
    return float(np.mean(crps(predict(judged.features)[:, QUANTILES_FROM:].astype(np.float64), judged.total)))


def _candidate(
    family: str, model: bytes, predict: Scores, *, validation: SpendingExamples, checkpoint: Mapping[str, bytes]
) -> Candidate:  # fmt: skip
    golden = validation.features[:: max(1, len(validation.features) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    return Candidate(
        name=family, model=model, feature_names=SPENDING_FEATURES, golden_inputs=golden, expected=predict(golden),
        validation_score=-headline_crps(predict, validation), calibration=conformal(predict(validation.features), validation),
        parameters={"family": family, "fine_tuned": family == FINE_TUNED_LSTM, "outputs": list(OUTPUTS)}, checkpoint=checkpoint,
    )  # fmt: skip


def conformal(scores: Float32Array, validation: SpendingExamples) -> dict[str, Any]:
    """Return split-conformal offsets around the mean in units of the row's scale, for each week and for the four together.

    Vovk et al. (2005); Romano et al. (2019) for the two-sided form: of n residuals the bound is the one at rank
    ceil((n + 1) · (1 - tail)).
    """
    scale = validation.column("scale")[:, None]
    means = scores[:, :STEPS].astype(np.float64)
    weekly = (validation.truth - means) / scale
    total = (validation.total - means.sum(axis=1))[:, None] / scale
    residuals = np.concatenate([weekly, total], axis=1)
    ordered = np.sort(residuals, axis=0)
    rank = min(len(ordered), int(np.ceil((len(ordered) + 1) * (1 - (1 - COVERAGE) / 2))))
    lower, upper = ordered[len(ordered) - rank], ordered[rank - 1]
    return {
        "coverage": COVERAGE, "lower": lower[:STEPS].tolist(), "upper": upper[:STEPS].tolist(),
        "lower_total": float(lower[STEPS]), "upper_total": float(upper[STEPS]),
    }  # fmt: skip


def served_layout(runtime: Runtime, examples: SpendingExamples) -> FloatArray:
    """Return a version's forecasts in the candidates' layout; one that only gives means is a point forecast."""
    scores = runtime.scores(examples.features).astype(np.float64)
    names = tuple(runtime.manifest.parameters.get("outputs", MEAN_OUTPUTS))
    if names == OUTPUTS:
        return scores
    means = scores[:, [names.index(name) for name in MEAN_OUTPUTS]]
    return _layout(means, point_as_quantiles(means.sum(axis=1)))


def trivial_forecasts(judged: SpendingExamples, train: SpendingExamples) -> dict[str, FloatArray]:
    """Return the forecasts that take no fitting, by name, in the candidates' layout.

    ``own_sums`` is the best of them for the CRPS once users have a history, ``population_sums`` before that.
    """
    found = {}
    for name, forecast in FORECASTS.items():
        means = forecast(judged.series.astype(np.float32)).astype(np.float64)
        found[name] = _layout(means, point_as_quantiles(means.sum(axis=1)))
    means = found[BASELINE_MEANS][:, :STEPS]
    found["own_sums"] = _layout(means, own_sums_as_quantiles(judged.series, judged.column("weeks_observed")))
    similar = train.only(train.headline)
    seen = (similar if similar.users.size else train).total
    everyone = np.repeat(np.quantile(seen, LEVELS)[None, :], judged.users.size, axis=0)
    found["population_sums"] = _layout(np.full((judged.users.size, STEPS), seen.mean() / STEPS), everyone)
    return found


def _layout(means: FloatArray, totals: FloatArray) -> FloatArray:
    return np.concatenate([means, np.mean(totals > 0, axis=1, keepdims=True), totals], axis=1)
