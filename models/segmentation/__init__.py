"""Segmentation: which group of users behaves alike?"""

from __future__ import annotations

from modelkit.definition import ModelDefinition, Part
from schemas.thresholds import ThresholdRule

DEFINITION = ModelDefinition(
    model_type="segmentation",
    contract_version=1,
    title="User segmentation",
    counts="users whose history has become long enough",
    threshold=ThresholdRule(threshold=100, adaptive=True, max_age_seconds=30 * 86_400),
    dataset=Part("models.segmentation.dataset:DATASET"),
    runtime=Part("models.segmentation.runtime:SegmentationRuntime"),
    answer=Part("models.segmentation.answer:UserSegmentInfo"),
    baseline=Part("models.segmentation.baseline:BASELINE"),
    gate=Part("models.segmentation.gate:GATE"),
    trainer=Part("models.segmentation.training:TRAINER"),
)
