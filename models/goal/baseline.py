"""Version 0: every second goal is met, and the two rules of :class:`~models.goal.runtime.GoalBaseline`, which need no learning."""

from __future__ import annotations

from modelkit.baselines import Baseline
from modelkit.manifest import FEATURES, PARAMETERS
from models.goal.features import GOAL_FEATURES
from models.goal.runtime import FeatureNotes, GoalBaseline

BASELINE = Baseline(
    files={
        PARAMETERS: GoalBaseline(base_rate=0.5),
        FEATURES: FeatureNotes(reference=[0.0] * len(GOAL_FEATURES)),
    }
)
