"""The headline metric, and how much is asked of a candidate."""

from __future__ import annotations

from modelkit.training.validation import Gate, GatePolicy, Metric

GATE = Gate(
    metric=Metric(name="brier", higher_is_better=False, unit="squared error of a probability, 0 to 1"),
    policy=GatePolicy(champion_margin=0.0),
)
