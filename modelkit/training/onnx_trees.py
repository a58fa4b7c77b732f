"""LightGBM ensembles as ONNX, exactly: the same rows take the same branches.

A row goes left where ``x <= threshold`` in double precision. ONNX compares in single precision, so each threshold is
rounded down to the largest single-precision number that is not above it; for single-precision rows that changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
from onnx import TensorProto, helper

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8


def ensemble_node(booster: lgb.Booster, *, rows: str, output: str) -> onnx.NodeProto:
    """Return a node from ``rows`` (n, d) to the booster's raw scores ``output`` (n, 1).

    Raises:
        ValueError: for what the product does not use: categorical splits and more than one output.
    """
    dump = booster.dump_model()
    if dump["num_tree_per_iteration"] != 1:
        raise ValueError("only boosters with one output are exported")
    nodes: dict[str, Any] = {name: [] for name in (
        "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values", "nodes_truenodeids",
        "nodes_falsenodeids", "nodes_missing_value_tracks_true", "target_treeids", "target_nodeids", "target_ids", "target_weights",
    )}  # fmt: skip
    for number, tree in enumerate(dump["tree_info"]):
        _add_tree(nodes, number, tree["tree_structure"])
    nodes["nodes_hitrates"] = [1.0] * len(nodes["nodes_values"])
    return helper.make_node(
        "TreeEnsembleRegressor", [rows], [output], domain="ai.onnx.ml", n_targets=1, post_transform="NONE", aggregate_function="SUM", **nodes
    )  # fmt: skip


def _add_tree(nodes: dict[str, Any], tree: int, root: dict[str, Any]) -> None:
    """Append one tree, its nodes numbered from 0 in the order in which they are met."""
    waiting = [root]
    next_number = 1
    for number, node in enumerate(waiting):  # grows while it is walked: breadth first
        leaf = "split_feature" not in node
        nodes["nodes_treeids"].append(tree)
        nodes["nodes_nodeids"].append(number)
        nodes["nodes_modes"].append("LEAF" if leaf else "BRANCH_LEQ")
        nodes["nodes_featureids"].append(0 if leaf else node["split_feature"])
        nodes["nodes_values"].append(0.0 if leaf else _threshold(node))
        nodes["nodes_missing_value_tracks_true"].append(0 if leaf else int(node["default_left"]))
        nodes["nodes_truenodeids"].append(0 if leaf else next_number)
        nodes["nodes_falsenodeids"].append(0 if leaf else next_number + 1)
        if leaf:
            nodes["target_treeids"].append(tree)
            nodes["target_nodeids"].append(number)
            nodes["target_ids"].append(0)
            nodes["target_weights"].append(float(node["leaf_value"]))
        else:
            waiting += [node["left_child"], node["right_child"]]
            next_number += 2


def _threshold(node: dict[str, Any]) -> float:
    if node["decision_type"] != "<=":
        raise ValueError("only numerical splits are exported")
    exact = float(node["threshold"])
    rounded = np.float32(exact)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > exact else rounded)


def model_of(
    nodes: Sequence[onnx.NodeProto], *, features: int, outputs: int, constants: dict[str, Any]
) -> onnx.ModelProto:
    """Return a model from ``features`` (n, d) to ``scores`` (n, outputs) with a free first axis."""
    graph = helper.make_graph(
        list(nodes), "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", outputs])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    operators = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=operators, ir_version=IR_VERSION, producer_name="fincoach")
    onnx.checker.check_model(model)
    return model
