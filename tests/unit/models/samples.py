"""Events, artifacts and graphs that the tests of the models are made from."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fincoach_events.events import (
    GoalModified,
    PageViewed,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
)
from modelkit.features import REDUCER_VERSION
from modelkit.manifest import GOLDEN, MODEL, LoadedArtifact, Manifest, build_artifact, golden_file, open_artifact
from modelkit.registry import definition_of
from modelkit.signing import SigningKey
from schemas.vocabulary import ArtifactKind, ModelType

USER = uuid.UUID(int=7)
KEY = SigningKey.generate()
CREATED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def at(text: str) -> dt.datetime:
    """Return a moment in UTC, such as ``2026-03-31 12:00``."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def transaction(moment: dt.datetime, amount: float, category: str = "groceries", **fields: Any) -> TransactionCreated:  # noqa: ANN401
    """Return a transaction of ``amount`` major units, by default a debit."""
    return TransactionCreated(
        event_id=uuid.uuid4(),
        user_id=USER,
        occurred_at=moment,
        consent=True,
        amount_minor=round(amount * 100),
        currency="USD",
        category=category,
        transaction_type=fields.pop("transaction_type", "debit"),
        **fields,
    )


def goal(moment: dt.datetime, step: str, goal_id: str = "g1", **fields: Any) -> GoalModified:  # noqa: ANN401
    """Return a step of a goal."""
    return GoalModified(
        event_id=uuid.uuid4(),
        user_id=USER,
        occurred_at=moment,
        consent=True,
        goal_id=goal_id,
        interaction_type=step,  # type: ignore[arg-type]
        **fields,
    )


def page_view(moment: dt.datetime) -> PageViewed:
    """Return a page view."""
    return PageViewed(event_id=uuid.uuid4(), user_id=USER, occurred_at=moment, consent=True, page_url="/home")


def feedback(moment: dt.datetime, kind: str) -> RecommendationInteraction:
    """Return an answer to a recommendation."""
    return RecommendationInteraction(
        event_id=uuid.uuid4(),
        user_id=USER,
        occurred_at=moment,
        consent=True,
        recommendation_id="r1",
        interaction_type=kind,  # type: ignore[arg-type]
    )


def product(moment: dt.datetime, kind: str) -> ProductInteraction:
    """Return a step of a purchase."""
    return ProductInteraction(
        event_id=uuid.uuid4(),
        user_id=USER,
        occurred_at=moment,
        consent=True,
        product_id="p1",
        interaction_type=kind,  # type: ignore[arg-type]
    )


def linear_graph(weights: npt.NDArray[np.float32], *, inputs: int | None = None, output: str = "scores") -> bytes:
    """Return an ONNX graph that multiplies rows (n, d) by ``weights`` (d, k)."""
    width, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], [output])],
        "linear",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, inputs or width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, columns])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def manifest(model_type: ModelType, **fields: Any) -> Manifest:  # noqa: ANN401
    """Return the manifest of a learned version, without digests."""
    drafted = Manifest(
        model_type=model_type,
        kind=ArtifactKind.LEARNED,
        feature_names=definition_of(model_type).runtime.load().feature_names,
        reducer_version=REDUCER_VERSION,
        created_at=CREATED_AT,
    )
    return msgspec.structs.replace(drafted, **fields)


def learned(drafted: Manifest, weights: npt.NDArray[np.float32], **files: bytes) -> dict[str, bytes]:
    """Return a signed artifact whose graph multiplies by ``weights``, with golden predictions; files are named ``profiles_json`` and the like."""
    width = len(drafted.feature_names)
    rows = np.asarray(np.random.default_rng(3).normal(size=(4, width)), dtype=np.float32)
    outputs = rows[:, : weights.shape[0]] @ weights
    extra = {name.replace("_", "."): content for name, content in files.items()}
    content = {MODEL: linear_graph(weights), GOLDEN: golden_file(rows.tolist(), outputs.tolist()), **extra}
    return build_artifact(drafted, content, KEY)


def opened(artifact: dict[str, bytes]) -> LoadedArtifact:
    """Return the verified artifact."""
    return open_artifact(artifact, KEY.trusted())
