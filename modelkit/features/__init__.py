"""The feature reducer: pure, versioned, and the one code path of serving and training.

``fold`` takes an event into a user's state; the ``*_features`` functions read a row from a state at a moment.
"""

from modelkit.features.financial import STATE_FEATURES, state_features
from modelkit.features.fold import fold
from modelkit.features.forecasts import FORECASTS
from modelkit.features.goals import GOAL_FEATURES, goal_features, goal_in
from modelkit.features.replay import replay
from modelkit.features.segments import SEGMENTATION_FEATURES, segmentation_features
from modelkit.features.state import (
    CATEGORIES,
    REDUCER_VERSION,
    Goal,
    UserState,
    copy_state,
    decode_state,
    encode_state,
)
from modelkit.features.weekly import FORECAST_STEPS, SERIES_WEEKS, SPENDING_FEATURES, spending_features, weekly_series

__all__ = [
    "CATEGORIES",
    "FORECASTS",
    "FORECAST_STEPS",
    "GOAL_FEATURES",
    "REDUCER_VERSION",
    "SEGMENTATION_FEATURES",
    "SERIES_WEEKS",
    "SPENDING_FEATURES",
    "STATE_FEATURES",
    "Goal",
    "UserState",
    "copy_state",
    "decode_state",
    "encode_state",
    "fold",
    "goal_features",
    "goal_in",
    "replay",
    "segmentation_features",
    "spending_features",
    "state_features",
    "weekly_series",
]
