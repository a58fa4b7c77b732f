"""The contract of a runtime: one loaded version of one model that can predict. It reads nothing but the file it was loaded from."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from modelkit.features.state import UserState
    from modelkit.manifest import Manifest

FloatArray = npt.NDArray[np.float32]


class PredictionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime is told beside the user's state: the moment, which goal, and a random number in [0, 1) for the choice of an action.

    ``goal`` holds the fields of a goal that the user's state does not know yet (``target_minor``, ``due_at``).
    """

    as_of: dt.datetime
    goal_id: str | None = None
    goal: dict[str, Any] | None = None
    randomness: float = 0.5


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime answers: FinCoach's shape as a plain object, and for recommendations what was chosen and how.

    ``propensities`` are exact, sum to 1 and are at least the floor of the manifest; ``action`` was drawn with
    ``propensities[action]`` by the request's ``randomness`` in [0, 1).
    """

    body: dict[str, Any]
    action_set: str | None = None
    action: int | None = None
    propensity: float | None = None
    propensities: tuple[float, ...] | None = None


class Runtime(Protocol):
    """One loaded version. Instances are immutable after construction and safe to call from several threads."""

    manifest: Manifest

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return the feature row, shape (d,), in the order of ``manifest.feature_names``; an unknown user gives the cold-start row."""

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the raw model outputs for rows of shape (n, d): what golden predictions pin and the v2 protocol returns.

        What each column means is the model's own: values of actions, distances, forecasts, a probability.
        """

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return the answer in FinCoach's shape for one row of shape (d,)."""

    def warm_up(self) -> None:
        """Run the golden inputs once, so that the first caller does not pay for lazy initialisation."""

    def close(self) -> None:
        """Free the model's memory; the runtime must not be used again."""
