"""Recommendation: which action helps a user most?"""

from __future__ import annotations

from modelkit.definition import ModelDefinition, Part
from schemas.thresholds import ThresholdRule

DEFINITION = ModelDefinition(
    model_type="recommendation",
    contract_version=1,
    title="Recommendation",
    counts="answers to recommendations",
    threshold=ThresholdRule(threshold=500, adaptive=True, max_age_seconds=30 * 86_400),
    dataset=Part("models.recommendation.dataset:DATASET"),
    runtime=Part("models.recommendation.runtime:RecommendationRuntime"),
    answer=Part("models.recommendation.answer:AIRecommendation"),
    baseline=Part("models.recommendation.baseline:BASELINE"),
    gate=Part("models.recommendation.gate:GATE"),
    trainer=Part("models.recommendation.training:TRAINER"),
)
