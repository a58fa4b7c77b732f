"""How probabilities of goals are judged and explained. Pure but for the models that are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from models.goal.features import GOAL_FEATURES

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BINS = 10
SURE = 1e-6
HALF = 0.5
NAMED = 12
PERMUTED_ROWS = 1_000


def brier_rows(probabilities: FloatArray, achieved: BoolArray) -> FloatArray:
    """Return the squared error of each probability, (n,). Brier (1950)."""
    return np.asarray((probabilities - achieved) ** 2, dtype=np.float64)


def reports_of(probabilities: FloatArray, achieved: BoolArray, *, threshold: float) -> dict[str, float]:
    """Return the metrics that people read; ``threshold`` makes an answer of a probability. Both outcomes must occur."""
    predicted = probabilities >= threshold
    hits = float(np.sum(predicted & achieved))
    precision, recall = hits / max(float(predicted.sum()), 1.0), hits / float(achieved.sum())
    clipped = np.clip(probabilities, SURE, 1 - SURE)
    return {
        "auc": area(probabilities, achieved),
        "pr_auc": float(average_precision_score(achieved, probabilities)),
        "precision": precision,
        "recall": recall,
        "f1": f1_of(predicted, achieved),
        "brier": float(np.mean(brier_rows(probabilities, achieved))),
        "log_loss": float(-np.mean(np.where(achieved, np.log(clipped), np.log(1 - clipped)))),
        "calibration_error": calibration_error(probabilities, achieved),
        "threshold": threshold,
    }


def area(probabilities: FloatArray, achieved: BoolArray) -> float:
    """Return the area under the ROC curve: how often a goal that was achieved had the higher probability."""
    return float(roc_auc_score(achieved, probabilities))


def f1_of(predicted: BoolArray, achieved: BoolArray) -> float:
    """Return the harmonic mean of precision and recall of yes-or-no answers."""
    return float(2.0 * np.sum(predicted & achieved) / max(float(predicted.sum() + achieved.sum()), 1.0))


def calibration_error(probabilities: FloatArray, achieved: BoolArray) -> float:
    """Return the mean distance of probability and frequency over ten bins of equal width. Naeini et al. (2015)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=probabilities - achieved, minlength=BINS)
    return float(np.sum(np.abs(gaps)) / probabilities.size)


def best_threshold(probabilities: FloatArray, achieved: BoolArray) -> float:
    """Return the threshold with the best F1 on these rows, in steps of .01; of equally good ones that nearest to one half."""
    tried = sorted((step / 100 for step in range(1, 100)), key=lambda threshold: abs(threshold - HALF))
    return max(tried, key=lambda threshold: round(f1_of(probabilities >= threshold, achieved), 3))


def permutation_importances(
    predict: Callable[[Float32Array], FloatArray], rows: Float32Array, achieved: BoolArray, *, seed: int
) -> FloatArray:
    """Return how much the Brier score rises when a feature's values are dealt out anew among the rows, (d,). Breiman (2001)."""
    generator = np.random.default_rng(seed)
    before = float(np.mean(brier_rows(predict(rows), achieved)))
    rises = np.zeros(rows.shape[1])
    for column in np.flatnonzero(np.ptp(rows, axis=0) > 0.0):
        dealt = rows.copy()
        dealt[:, column] = generator.permutation(rows[:, column])
        rises[column] = float(np.mean(brier_rows(predict(dealt), achieved))) - before
    return rises


def importance_reports(ours: Mapping[str, FloatArray], theirs: Mapping[str, FloatArray]) -> dict[str, dict[str, float]]:
    """Return by kind of importance the most important features, and how many ranks each has risen against the champion's."""
    reports = {}
    for kind, values in ours.items():
        top = np.argsort(-values, kind="stable")[:NAMED]
        reports[f"importance_by_{kind}"] = {GOAL_FEATURES[column]: float(values[column]) for column in top}
        if kind in theirs:
            before, now = _ranks(theirs[kind]), _ranks(values)
            reports[f"rank_change_by_{kind}"] = {
                GOAL_FEATURES[column]: float(before[column] - now[column]) for column in top
            }
    return reports


def _ranks(values: FloatArray) -> npt.NDArray[Any]:
    return np.argsort(np.argsort(-values, kind="stable"), kind="stable")
