"""Churn: will this user buy again within 60 days?"""

from __future__ import annotations

from modelkit.definition import ModelDefinition, Part
from schemas.thresholds import ThresholdRule

DEFINITION = ModelDefinition(
    model_type="churn",
    contract_version=1,
    title="Customer churn",
    counts="transactions",
    threshold=ThresholdRule(threshold=1_000, adaptive=True, max_age_seconds=30 * 86_400),
    dataset=Part("fincoach_churn.dataset:DATASET"),
    runtime=Part("fincoach_churn.runtime:ChurnRuntime"),
    answer=Part("fincoach_churn.answer:ReturnProbability"),
    baseline=Part("fincoach_churn.baseline:BASELINE"),
    gate=Part("fincoach_churn.gate:GATE"),
    trainer=Part("fincoach_churn.training:TRAINER"),
)
