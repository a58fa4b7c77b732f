"""Version 0 of each model: its trivial baseline as a signed artifact, so that every model answers before the first promotion.

The same creation time and key give the same bytes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec
import numpy as np

from modelkit.bandit import Policy
from modelkit.features import GOAL_FEATURES, REDUCER_VERSION
from modelkit.interface import FloatArray
from modelkit.manifest import FEATURES, GOLDEN, PARAMETERS, PROFILES, Manifest, build_artifact, golden_file
from modelkit.registry import RUNTIMES
from modelkit.signing import SigningKey
from models.goal.runtime import FeatureNotes, GoalBaseline
from models.recommendation.runtime import STATE_CONTEXT, RecommendationSettings, UniformValues
from models.segmentation.runtime import SEGMENT_NAMES, RfmBands, SegmentProfile
from models.spending.runtime import TrivialForecast
from schemas.vocabulary import DEFAULT_ACTION_SET, RECOMMENDATION_ACTIONS, ArtifactKind, ModelType

PROPENSITY_FLOOR = 0.02
GOLDEN_ROWS = 8

# Published cut points of version 0, before anything was seen: a month, a quarter; a few, a dozen, a hundred purchases.
_VERSION_0_BANDS = RfmBands(
    recency_cuts=[7.0, 30.0, 90.0, 180.0],
    frequency_cuts=[2.0, 5.0, 12.0, 50.0],
    monetary_cuts=[10.0, 25.0, 50.0, 100.0],
    sum_cuts=[4.5, 7.5, 10.5, 13.5],
)
# Bands from the least to the most active, under the host's names.
_BAND_SEGMENTS = (0, 3, 2, 1, 4)


def baseline_artifact(model_type: ModelType, signing_key: SigningKey, created_at: dt.datetime) -> dict[str, bytes]:
    """Return version 0 of a model, signed, manifest included."""
    manifest = _manifest(model_type, created_at)
    files = _files(model_type)
    rows = _golden_rows(len(manifest.feature_names))
    outputs = RUNTIMES[model_type].scorer(manifest, files)(rows)
    return build_artifact(manifest, {**files, GOLDEN: golden_file(rows.tolist(), outputs.tolist())}, signing_key)


def _manifest(model_type: ModelType, created_at: dt.datetime) -> Manifest:
    manifest = Manifest(
        model_type=model_type,
        kind=ArtifactKind.BASELINE,
        feature_names=RUNTIMES[model_type].feature_names,
        reducer_version=REDUCER_VERSION,
        created_at=created_at,
    )
    if model_type is not ModelType.RECOMMENDATION:
        return manifest
    return msgspec.structs.replace(
        manifest,
        context_schema=STATE_CONTEXT,
        action_set=DEFAULT_ACTION_SET,
        actions=RECOMMENDATION_ACTIONS,
        propensity_floor=PROPENSITY_FLOOR,
        parameters=msgspec.to_builtins(RecommendationSettings(policy=Policy(kind="uniform"))),
    )


def _files(model_type: ModelType) -> dict[str, bytes]:
    """Return the files that make a baseline, without golden predictions."""
    contents: Mapping[ModelType, dict[str, object]] = {
        ModelType.RECOMMENDATION: {PARAMETERS: UniformValues()},
        ModelType.SEGMENTATION: {PARAMETERS: _VERSION_0_BANDS, PROFILES: _profiles()},
        ModelType.SPENDING: {PARAMETERS: TrivialForecast(forecast="mean_26_weeks")},
        ModelType.GOAL: {
            PARAMETERS: GoalBaseline(base_rate=0.5),
            FEATURES: FeatureNotes(reference=[0.0] * len(GOAL_FEATURES)),
        },
    }
    return {name: msgspec.json.encode(content) for name, content in contents[model_type].items()}


def _profiles() -> list[SegmentProfile]:
    return [
        SegmentProfile(segment_id=segment, name=SEGMENT_NAMES[segment], share=1.0 / len(SEGMENT_NAMES))
        for segment in _BAND_SEGMENTS
    ]


def _golden_rows(width: int) -> FloatArray:
    """Return rows that reach low, middle and high values of every column without drawing anything."""
    grid = np.arange(GOLDEN_ROWS * width, dtype=np.float32).reshape(GOLDEN_ROWS, width)
    return np.asarray((grid * 37.0) % 101.0, dtype=np.float32)
