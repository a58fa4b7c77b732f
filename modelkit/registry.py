"""From a model type to its runtime: the one place that lists the four."""

from __future__ import annotations

from collections.abc import Mapping

from modelkit.interface import Runtime
from modelkit.manifest import LoadedArtifact
from modelkit.scoring import ScoringRuntime
from models.goal.runtime import GoalRuntime
from models.recommendation.runtime import RecommendationRuntime
from models.segmentation.runtime import SegmentationRuntime
from models.spending.runtime import SpendingRuntime
from schemas.vocabulary import ModelType

RUNTIMES: Mapping[ModelType, type[ScoringRuntime]] = {
    runtime.model_type: runtime
    for runtime in (RecommendationRuntime, SegmentationRuntime, SpendingRuntime, GoalRuntime)
}


def runtime_for(loaded: LoadedArtifact) -> Runtime:
    """Return the runtime of a verified artifact, once it reproduces the golden predictions.

    Raises:
        ArtifactRejectedError: when it does not, or cannot be loaded.
    """
    return RUNTIMES[loaded.manifest.model_type].from_artifact(loaded)
