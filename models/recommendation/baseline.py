"""Version 0: every action is equally likely."""

from __future__ import annotations

import msgspec

from modelkit.bandit import Policy
from modelkit.baselines import Baseline
from modelkit.manifest import PARAMETERS
from models.recommendation.actions import DEFAULT_ACTION_SET, RECOMMENDATION_ACTIONS
from models.recommendation.runtime import STATE_CONTEXT, RecommendationSettings, UniformValues

PROPENSITY_FLOOR = 0.02

BASELINE = Baseline(
    files={PARAMETERS: UniformValues()},
    manifest={
        "context_schema": STATE_CONTEXT,
        "action_set": DEFAULT_ACTION_SET,
        "actions": RECOMMENDATION_ACTIONS,
        "propensity_floor": PROPENSITY_FLOOR,
        "parameters": msgspec.to_builtins(RecommendationSettings(policy=Policy(kind="uniform"))),
    },
)
