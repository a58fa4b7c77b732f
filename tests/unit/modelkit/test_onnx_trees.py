"""LightGBM in ONNX: the same branches, the same numbers."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.training.onnx_trees import ensemble_node, model_of


def fitted(seed: int, *, objective: str = "regression") -> tuple[lgb.Booster, np.ndarray]:
    """Return a booster on rounded features, so that many values fall on thresholds, and its rows."""
    generator = np.random.default_rng(seed)
    rows = np.round(generator.normal(0, 3, (600, 5)), 1).astype(np.float32)
    target = np.sin(rows[:, 0]) + rows[:, 1] * (rows[:, 2] > 0) + generator.normal(0, 0.1, 600)
    target = (target > 0).astype(float) if objective == "binary" else target
    settings = {
        "objective": objective,
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
        "seed": seed,
        "min_data_in_leaf": 5,
    }
    return lgb.train(settings, lgb.Dataset(rows, target), num_boost_round=30), rows


def answers(booster: lgb.Booster, rows: np.ndarray) -> np.ndarray:
    """Return what the exported model says."""
    model = model_of(
        [ensemble_node(booster, rows="features", output="scores")], features=rows.shape[1], outputs=1, constants={}
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(["scores"], {"features": rows})[0]
    return result[:, 0]


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_rows_that_lie_on_a_threshold_take_the_same_branch(seed: int) -> None:
    """A value on a threshold takes the same branch as in LightGBM."""
    booster, rows = fitted(seed)
    np.testing.assert_allclose(answers(booster, rows), booster.predict(rows, raw_score=True), atol=1e-4)


def test_raw_scores_of_a_classifier_are_exported() -> None:
    """A classifier is exported with its raw scores."""
    booster, rows = fitted(1, objective="binary")
    np.testing.assert_allclose(answers(booster, rows), booster.predict(rows, raw_score=True), atol=1e-4)


def test_boosters_with_several_outputs_are_refused() -> None:
    """A booster with several outputs is refused."""
    rows = np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32)
    booster = lgb.train(
        {"objective": "multiclass", "num_class": 3, "verbosity": -1},
        lgb.Dataset(rows, np.arange(90) % 3),
        num_boost_round=2,
    )
    with pytest.raises(ValueError, match="one output"):
        ensemble_node(booster, rows="features", output="scores")
