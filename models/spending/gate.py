"""The headline metric, and how much is asked of a candidate."""

from __future__ import annotations

from modelkit.training.validation import Gate, GatePolicy, Metric

GATE = Gate(
    metric=Metric(name="crps_of_four_weeks", higher_is_better=False, unit="money, in major units of the currency"),
    policy=GatePolicy(),
)
