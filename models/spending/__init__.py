"""Spending: how much will a user spend in the coming weeks?"""

from __future__ import annotations

from modelkit.definition import ModelDefinition, Part
from schemas.thresholds import ThresholdRule

DEFINITION = ModelDefinition(
    model_type="spending",
    contract_version=1,
    title="Spending forecast",
    counts="transactions",
    threshold=ThresholdRule(threshold=1_000, adaptive=True, max_age_seconds=30 * 86_400),
    dataset=Part("models.spending.dataset:DATASET"),
    runtime=Part("models.spending.runtime:SpendingRuntime"),
    answer=Part("models.spending.answer:SpendingPrediction"),
    baseline=Part("models.spending.baseline:BASELINE"),
    gate=Part("models.spending.gate:GATE"),
    trainer=Part("models.spending.training:TRAINER"),
)
