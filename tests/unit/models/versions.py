"""Small learned versions of the four models, and a user to ask them about."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np
import numpy.typing as npt

from modelkit.features import (
    UserState,
    fold,
)
from modelkit.interface import PredictionRequest
from modelkit.registry import definition_of
from models.recommendation.actions import DEFAULT_ACTION_SET, RECOMMENDATION_ACTIONS
from models.recommendation.runtime import STATE_CONTEXT
from models.segmentation.runtime import SegmentProfile
from schemas.vocabulary import ModelType
from tests.unit.models.samples import at, goal, learned, manifest, transaction

Floats = npt.NDArray[np.float32]
AS_OF = at("2026-03-31 12:00")
REQUEST = PredictionRequest(as_of=AS_OF)
RECOMMENDATION = {
    "context_schema": STATE_CONTEXT,
    "action_set": DEFAULT_ACTION_SET,
    "actions": RECOMMENDATION_ACTIONS,
    "propensity_floor": 0.02,
}
PROFILES = [
    SegmentProfile(
        segment_id=7,
        name="Conservative Savers",
        share=0.6,
        medians={"frequency": 3.0},
        spreads={"frequency": 2.0},
        telling=["frequency", "unheard_of"],
    ),
    SegmentProfile(segment_id=9, name="High Spenders", share=0.4),
]


def weights(model_type: ModelType, columns: int) -> Floats:
    """Return weights that differ for each column."""
    width = len(definition_of(model_type).runtime.load().feature_names)
    return np.asarray(np.random.default_rng(5).normal(size=(width, columns)) / 100, dtype=np.float32)


def learned_artifact(model_type: ModelType) -> dict[str, bytes]:
    """Return a small learned version of each type."""
    if model_type == "recommendation":
        return learned(manifest(model_type, **RECOMMENDATION), weights(model_type, 5))
    if model_type == "segmentation":
        return learned(manifest(model_type), weights(model_type, 2), profiles_json=msgspec.json.encode(PROFILES))
    return learned(manifest(model_type), weights(model_type, 4 if model_type == "spending" else 1))


def user() -> UserState:
    """Return a user with ten weeks of spending and a goal."""
    state: UserState | None = None
    for week in range(10, 0, -1):
        state = fold(state, transaction(AS_OF - dt.timedelta(days=7 * week - 1), 70, "bills", merchant="m"))
    return fold(state, goal(AS_OF, "create", goal_kind="budget", target_minor=50_00, due_at=AS_OF + dt.timedelta(9)))
