"""Version 0: the longer ago the last purchase, the less likely the next."""

from __future__ import annotations

from fincoach_churn.runtime import RecencyRule
from modelkit.baselines import Baseline
from modelkit.manifest import PARAMETERS

BASELINE = Baseline(
    files={PARAMETERS: RecencyRule(cuts=[14.0, 30.0, 60.0, 120.0, 240.0], rates=[0.6, 0.5, 0.4, 0.25, 0.15, 0.05])}
)
