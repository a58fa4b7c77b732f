"""The feature reducer: pure, versioned, and the one code path of serving and training.

``fold`` takes an event into a user's state; ``state_features`` reads the host's 35 features from a state at a moment.
Other rows stand with the models that use them.
"""

from modelkit.features.financial import STATE_FEATURES, state_features
from modelkit.features.fold import fold
from modelkit.features.replay import replay
from modelkit.features.state import (
    CATEGORIES,
    REDUCER_VERSION,
    Goal,
    UserState,
    copy_state,
    decode_state,
    encode_state,
)

__all__ = [
    "CATEGORIES",
    "REDUCER_VERSION",
    "STATE_FEATURES",
    "Goal",
    "UserState",
    "copy_state",
    "decode_state",
    "encode_state",
    "fold",
    "replay",
    "state_features",
]
