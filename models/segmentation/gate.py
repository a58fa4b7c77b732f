"""The headline metric, and how much is asked of a candidate."""

from __future__ import annotations

from modelkit.training.validation import Gate, GatePolicy, Metric

SILHOUETTE_FLOOR = 0.1  # below, segments say nothing

GATE = Gate(
    metric=Metric(name="silhouette", higher_is_better=True, unit="mean silhouette of users, -1 to 1"),
    policy=GatePolicy(champion_margin=0.0),
)
