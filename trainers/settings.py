"""The trainers' settings, read from ``FINCOACH_…`` variables."""

from __future__ import annotations

import os

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backends.settings import ProcessSettings

IMPLICIT_SIGNALS = frozenset({"unanswered_view", "time_on_page"})
LARGEST_IMPLICIT = 0.1  # half of what the smallest answer is worth by default


class TrainersSettings(ProcessSettings):
    """How many trainings run at a time, how long they may take, and what happens when they do not end well."""

    training_parallel_runs: int = Field(
        default=1, ge=1, description="Trainings that one trainer runs at a time, each of another model."
    )
    training_max_attempts: int = Field(default=3, ge=1, description="After so many attempts a training has failed.")
    training_retry_seconds: float = Field(
        default=5.0, gt=0, description="Pause before the second attempt; doubles with each further one."
    )
    training_lease_seconds: float = Field(
        default=30.0, gt=0, description="A trainer that is silent for so long loses its training to another one."
    )
    training_timeout_seconds: float = Field(
        default=900.0, gt=0, description="A training that takes longer is ended and counts as an attempt."
    )
    training_grace_seconds: float = Field(
        default=5.0, gt=0, description="Time between asking a training to stop and killing it."
    )
    training_memory_bytes: int = Field(
        default=6 * 1024**3, gt=0, description="A training whose resident memory grows beyond this is ended."
    )
    training_seed: int = Field(
        default=0, ge=0, description="Seed of every fit, split and bootstrap; recorded with the training."
    )
    training_poll_seconds: float = Field(
        default=0.5, gt=0, description="How often the queue is looked at while nothing wakes it."
    )
    snapshot_page_rows: int = Field(
        default=20_000, ge=1, description="Archived events read at a time while a snapshot is taken."
    )


class RecommendationTrainingSettings(BaseSettings):
    """What an answer to a recommendation is worth, and how much evidence a new policy needs. Read by the training process."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", frozen=True, extra="ignore")

    recommendation_reward_weights: dict[str, float] = Field(
        default={"implement": 1.0, "helpful": 0.2, "click": 0.4, "dismiss": -0.5, "not_helpful": -1.0},
        description="Reward of each kind of answer (JSON); the kinds of one recommendation add up, within -1 and 1.",
    )
    recommendation_implicit_weights: dict[str, float] = Field(
        default={"unanswered_view": -0.01, "time_on_page": 0.05},
        description="What a view without an answer and a minute on its page teach (JSON); never judged by, together at most 0.1.",
    )
    recommendation_reward_window_hours: float = Field(
        default=168.0, gt=0, description="Answers that come later after a recommendation was seen do not count."
    )
    recommendation_gamma: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Discount of later rewards; 0 for one-step feedback, 0.9 where rewards are delayed.",
    )
    recommendation_effective_samples: int = Field(
        default=500,
        ge=1,
        description="Effective samples asked of a large holdout; a smaller one is asked for a tenth of its rows, at least 100.",
    )

    @field_validator("recommendation_implicit_weights")
    @classmethod
    def _small(cls, weights: dict[str, float]) -> dict[str, float]:
        """Refuse weights with which silence could weigh as much as an answer."""
        unknown = sorted(weights.keys() - IMPLICIT_SIGNALS)
        if unknown:
            raise ValueError(
                f"there is no implicit signal {unknown[0]!r}; choose of {', '.join(sorted(IMPLICIT_SIGNALS))}"
            )
        if not sum(abs(weight) for weight in weights.values()) <= LARGEST_IMPLICIT:
            raise ValueError(
                f"implicit weights may add up to {LARGEST_IMPLICIT} at most: an answer must always weigh more"
            )
        return weights


def child_environment() -> dict[str, str]:
    """Return the environment of a training process: this one's, with every numerical library held to one thread."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(threads, "1")}
