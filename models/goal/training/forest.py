"""The two fits of a goal's probability, a random forest and LightGBM, their calibration and their export. No class weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from modelkit.training.onnx_trees import ML_OPSET, OPSET, ensemble_node, model_of
from models.goal.features import GOAL_FEATURES
from models.goal.training.examples import GoalExamples

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

TREES = 100
LEAF_ROWS = 20
ROUNDS = 120
SMALLEST_PROBABILITY = 1e-4
CALIBRATION_GAIN = 0.01


class Calibration(NamedTuple):
    """A line through the log odds: Platt (1999)."""

    slope: float
    offset: float


@dataclass(frozen=True, kw_only=True)
class GoalFit:
    """A fitted model with its calibration, where one is used."""

    model: RandomForestClassifier | lgb.Booster
    calibration: Calibration | None = None

    def probabilities(self, rows: Float32Array) -> FloatArray:
        """Return the probability of success of rows (n, d), shape (n,)."""
        raw = raw_probabilities(self.model, rows)
        return raw if self.calibration is None else calibrated(raw, self.calibration)

    def importances(self) -> FloatArray:
        """Return the share of all gain that each feature brought where it split: impurity for the forest, loss for LightGBM."""
        if isinstance(self.model, RandomForestClassifier):
            return np.asarray(self.model.feature_importances_, dtype=np.float64)
        gains = np.asarray(self.model.feature_importance("gain"), dtype=np.float64)
        return gains / max(float(gains.sum()), 1e-12)


def fit_forest(examples: GoalExamples, *, seed: int) -> RandomForestClassifier:
    """Return the fitted forest."""
    forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF_ROWS, n_jobs=1, random_state=seed)
    return forest.fit(examples.features, examples.achieved)


def fit_lightgbm(examples: GoalExamples, *, seed: int) -> lgb.Booster:
    """Return the fitted booster."""
    settings = {
        "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 2 * LEAF_ROWS, "feature_fraction": 0.6,
        "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "num_threads": 1, "deterministic": True, "force_row_wise": True,
        "seed": seed, "verbosity": -1,
    }  # fmt: skip
    return lgb.train(settings, lgb.Dataset(examples.features, examples.achieved.astype(float)), num_boost_round=ROUNDS)


def raw_probabilities(model: RandomForestClassifier | lgb.Booster, rows: Float32Array) -> FloatArray:
    """Return the model's own probabilities, (n,)."""
    if isinstance(model, RandomForestClassifier):
        return np.asarray(model.predict_proba(rows)[:, 1], dtype=np.float64)
    return np.asarray(model.predict(rows), dtype=np.float64)


def calibrated(raw: FloatArray, calibration: Calibration) -> FloatArray:
    """Return probabilities on the line through their log odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-(calibration.slope * _log_odds(raw) + calibration.offset))))


def _log_odds(raw: FloatArray) -> FloatArray:
    clipped = np.clip(raw, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(clipped / (1 - clipped)))


def calibration_that_wins(fit: GoalFit, validation: GoalExamples) -> Calibration | None:
    """Return a calibration if, fitted on the earlier half of the validation rows, it lowers the Brier score of the later half.

    A calibration that was fitted on another cohort and not tried in time made the error ten times worse.
    """
    raw = fit.probabilities(validation.features)
    middle = np.median(validation.moments)
    earlier = validation.moments < middle
    if min(np.unique(validation.achieved[rows]).size for rows in (earlier, ~earlier)) < 2:  # noqa: PLR2004 - both outcomes
        return None
    line = _fit_line(raw[earlier], validation.achieved[earlier])
    truth = validation.achieved[~earlier]
    with_it = float(np.mean((calibrated(raw[~earlier], line) - truth) ** 2))
    without = float(np.mean((raw[~earlier] - truth) ** 2))
    return _fit_line(raw, validation.achieved) if with_it < (1 - CALIBRATION_GAIN) * without else None


def _fit_line(raw: FloatArray, achieved: npt.NDArray[np.bool_]) -> Calibration:
    line = LogisticRegression(C=1e3).fit(_log_odds(raw)[:, None], achieved)
    return Calibration(float(line.coef_[0, 0]), float(line.intercept_[0]))


def with_calibration(fit: GoalFit, validation: GoalExamples) -> GoalFit:
    """Return the fit with a calibration where that wins."""
    return replace(fit, calibration=calibration_that_wins(fit, validation))


def export_fit(fit: GoalFit) -> bytes:
    """Return a model from features (n, d) to ``scores`` (n, 1), the probability."""
    nodes, constants = _raw_nodes(fit.model)
    if fit.calibration is None:
        nodes.append(helper.make_node("Identity", ["raw"], ["scores"]))
    else:
        nodes += [
            helper.make_node("Clip", ["raw", "smallest", "largest"], ["clipped"]),
            helper.make_node("Sub", ["one", "clipped"], ["rest"]),
            helper.make_node("Div", ["clipped", "rest"], ["odds"]),
            helper.make_node("Log", ["odds"], ["log_odds"]),
            helper.make_node("Mul", ["log_odds", "slope"], ["turned"]),
            helper.make_node("Add", ["turned", "offset"], ["line"]),
            helper.make_node("Sigmoid", ["line"], ["scores"]),
        ]
        single = np.float32
        constants |= {
            "smallest": single(SMALLEST_PROBABILITY), "largest": single(1 - SMALLEST_PROBABILITY), "one": single(1),
            "slope": single(fit.calibration.slope), "offset": single(fit.calibration.offset),
        }  # fmt: skip
    model = model_of(nodes, features=len(GOAL_FEATURES), outputs=1, constants=constants)
    return bytes(model.SerializeToString())


def _raw_nodes(model: RandomForestClassifier | lgb.Booster) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Return the nodes from ``features`` to ``raw`` (n, 1) and their constants."""
    if isinstance(model, lgb.Booster):
        return [
            ensemble_node(model, rows="features", output="log_odds_raw"),
            helper.make_node("Sigmoid", ["log_odds_raw"], ["raw"]),
        ], {}
    example = np.zeros((1, len(GOAL_FEATURES)), dtype=np.float32)
    opsets = {"": OPSET, "ai.onnx.ml": ML_OPSET}
    graph = to_onnx(model, example, options={id(model): {"zipmap": False}}, target_opset=opsets).graph
    constants: dict[str, Any] = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes = [
        helper.make_node("Identity", ["features"], [graph.input[0].name]),
        *graph.node,
        helper.make_node("Gather", [graph.output[1].name, "achieved"], ["raw"], axis=1),
    ]
    return nodes, constants | {"achieved": np.array([1], dtype=np.int64)}
