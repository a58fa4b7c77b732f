"""The feature reducer: pure, versioned, and the one code path of serving and training.

``fold`` takes an event into a user's state; the ``*_features`` functions read a row from a state at a moment.
"""

from models.features.financial import STATE_FEATURES, state_features
from models.features.fold import fold
from models.features.forecasts import FORECASTS
from models.features.goals import GOAL_FEATURES, goal_features, goal_in
from models.features.replay import replay
from models.features.segments import SEGMENTATION_FEATURES, segmentation_features
from models.features.state import (
    CATEGORIES,
    REDUCER_VERSION,
    Goal,
    UserState,
    copy_state,
    decode_state,
    encode_state,
)
from models.features.weekly import FORECAST_STEPS, SERIES_WEEKS, SPENDING_FEATURES, spending_features, weekly_series

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
