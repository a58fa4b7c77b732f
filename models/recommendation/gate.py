"""The headline metric, and how much is asked of a candidate."""

from __future__ import annotations

from modelkit.training.validation import Gate, GatePolicy, Metric

GATE = Gate(
    metric=Metric(
        name="expected_reward_dr", higher_is_better=True, unit="reward of one recommendation, doubly robust, -1 to 1"
    ),
    policy=GatePolicy(),
)
