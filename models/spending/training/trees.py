"""The rival: LightGBM as a hurdle (will they buy, and how much) beside a Tweedie mean, and its export to ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelkit.training.onnx_trees import ensemble_node, model_of
from models.spending.features import SPENDING_FEATURES
from models.spending.training.distribution import LEVELS, OUTPUTS, STEPS, quantiles
from models.spending.training.examples import SpendingExamples

FloatArray = npt.NDArray[np.float64]
ROUNDS = 120
SMALLEST_PROBABILITY = 0.01
FEWEST_BUYERS = 50
SEASON = [SPENDING_FEATURES.index(name) for name in ("season_sin", "season_cos")]


@dataclass(frozen=True, kw_only=True)
class SpendingTrees:
    """Three boosters, and the spread of the log-logistic amount around the second one's location."""

    buy: lgb.Booster
    location: lgb.Booster
    mean: lgb.Booster
    spread: float


def fit_trees(examples: SpendingExamples, *, seed: int) -> SpendingTrees | None:
    """Return the fitted boosters; None when too few of the users buy to learn how much."""
    total = examples.total
    bought = total > 0.0
    if bought.sum() < FEWEST_BUYERS or (~bought).sum() < FEWEST_BUYERS:
        return None
    rows = examples.features.copy()
    if not examples.knows_season:
        rows[:, SEASON] = 0.0  # a constant column is never split on
    amounts = np.log(total[bought])
    location = _boost(rows[bought], amounts, seed=seed, objective="regression")
    residual = amounts - location.predict(rows[bought], raw_score=True)
    return SpendingTrees(
        buy=_boost(rows, bought.astype(float), seed=seed, objective="binary"),
        location=location,
        mean=_boost(rows, np.minimum(total, np.quantile(total, 0.999)), seed=seed, objective="tweedie", tweedie_variance_power=1.5),
        # The variance of the logistic distribution is (pi * spread)^2 / 3.
        spread=float(np.std(residual) * np.sqrt(3.0) / np.pi),
    )  # fmt: skip


def _boost(rows: npt.NDArray[np.float32], target: FloatArray, *, seed: int, objective: str, **more: Any) -> lgb.Booster:  # noqa: ANN401 - LightGBM's own settings
    settings = {
        "objective": objective, "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 40, "feature_fraction": 0.6,
        "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "num_threads": 1, "deterministic": True, "force_row_wise": True,
        "seed": seed, "verbosity": -1, **more,
    }  # fmt: skip
    return lgb.train(settings, lgb.Dataset(rows, target), num_boost_round=ROUNDS)


def tree_scores(trees: SpendingTrees, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the served layout for rows (n, d): four equal weekly means, probability of buying, quantiles of the total."""
    buy = np.clip(np.asarray(trees.buy.predict(features)), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    location = np.asarray(trees.location.predict(features))
    weekly = np.repeat(np.asarray(trees.mean.predict(features))[:, None] / STEPS, STEPS, axis=1)
    totals = quantiles(buy, location, np.full(len(buy), trees.spread))
    return np.concatenate([weekly, buy[:, None], totals], axis=1).astype(np.float32)


def export_trees(trees: SpendingTrees) -> bytes:
    """Return the boosters and the distribution made of them as one ONNX file."""
    nodes = [
        ensemble_node(trees.buy, rows="features", output="buy_logit"),
        ensemble_node(trees.location, rows="features", output="location"),
        ensemble_node(trees.mean, rows="features", output="log_mean"),
        helper.make_node("Exp", ["log_mean"], ["mean"]),
        helper.make_node("Mul", ["mean", "per_week"], ["weekly"]),  # (n, 1) by (1, 4)
        helper.make_node("Sigmoid", ["buy_logit"], ["buy_raw"]),
        helper.make_node("Clip", ["buy_raw", "smallest", "largest"], ["buy"]),
        helper.make_node("Sub", ["one", "buy"], ["not_buying"]),
        helper.make_node("Sub", ["levels", "not_buying"], ["above"]),
        helper.make_node("Div", ["above", "buy"], ["inside"]),
        helper.make_node("Clip", ["inside", "low", "high"], ["clipped"]),
        helper.make_node("Sub", ["one", "clipped"], ["rest"]),
        helper.make_node("Div", ["clipped", "rest"], ["odds"]),
        helper.make_node("Log", ["odds"], ["log_odds"]),
        helper.make_node("Mul", ["log_odds", "spread"], ["spread_odds"]),
        helper.make_node("Add", ["location", "spread_odds"], ["log_amounts"]),
        helper.make_node("Exp", ["log_amounts"], ["amounts"]),
        helper.make_node("Greater", ["inside", "zero"], ["buys"]),
        helper.make_node("Where", ["buys", "amounts", "zero"], ["totals"]),
        helper.make_node("Concat", ["weekly", "buy", "totals"], ["scores"], axis=1),
    ]
    single = np.float32
    constants = {
        "per_week": np.full((1, STEPS), 1 / STEPS, single), "smallest": single(SMALLEST_PROBABILITY),
        "largest": single(1 - SMALLEST_PROBABILITY), "one": single(1), "zero": single(0), "low": single(1e-6), "high": single(1 - 1e-6),
        "levels": LEVELS[None, :].astype(single), "spread": single(trees.spread),
    }  # fmt: skip
    return bytes(
        model_of(nodes, features=len(SPENDING_FEATURES), outputs=OUTPUTS, constants=constants).SerializeToString()
    )


def export_blend(network: bytes, trees: bytes) -> bytes:
    """Return a model that answers with the mean of two models' outputs; means of quantiles are quantiles again (Vincent)."""
    ours = [
        onnx.compose.add_prefix(onnx.load_model_from_string(raw), name)
        for raw, name in ((network, "a_"), (trees, "b_"))
    ]
    nodes = [
        helper.make_node("Identity", ["features"], ["a_features"]),
        helper.make_node("Identity", ["features"], ["b_features"]),
        *(node for model in ours for node in model.graph.node),
        helper.make_node("Mean", ["a_scores", "b_scores"], ["scores"]),
    ]
    constants = {item.name: onnx.numpy_helper.to_array(item) for model in ours for item in model.graph.initializer}
    return bytes(
        model_of(nodes, features=len(SPENDING_FEATURES), outputs=OUTPUTS, constants=constants).SerializeToString()
    )
