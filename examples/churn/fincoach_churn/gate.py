"""The headline metric, and how much is asked of a candidate."""

from __future__ import annotations

from modelkit.training.validation import Gate, GatePolicy, Metric

GATE = Gate(
    metric=Metric(name="log_loss", higher_is_better=False, unit="nats for each user; 0 is certainty"),
    policy=GatePolicy(),
)
