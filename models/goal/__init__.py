"""Goal achievement: will a user meet a goal?"""

from __future__ import annotations

from modelkit.definition import ModelDefinition, Part
from schemas.thresholds import ThresholdRule

DEFINITION = ModelDefinition(
    model_type="goal",
    contract_version=1,
    title="Goal achievement",
    counts="goals achieved or failed",
    threshold=ThresholdRule(threshold=50, adaptive=True, cool_down_seconds=300, max_age_seconds=30 * 86_400),
    dataset=Part("models.goal.dataset:DATASET"),
    runtime=Part("models.goal.runtime:GoalRuntime"),
    answer=Part("models.goal.answer:GoalAchievementProbability"),
    baseline=Part("models.goal.baseline:BASELINE"),
    gate=Part("models.goal.gate:GATE"),
    trainer=Part("models.goal.training:TRAINER"),
)
