"""The trainers' settings, read from ``FINCOACH_…`` variables."""

from __future__ import annotations

import os

from pydantic import Field

from backends.settings import ProcessSettings


class TrainersSettings(ProcessSettings):
    """How many trainings run at a time, how long they may take, and what happens when they fail."""

    training_parallel_runs: int = Field(
        default=1, ge=1, description="Trainings that one trainer runs at a time, each of another model."
    )
    training_max_attempts: int = Field(default=3, ge=1, description="A training fails after this many attempts.")
    training_retry_seconds: float = Field(
        default=5.0, gt=0, description="Pause before the second attempt; doubles with each further one."
    )
    training_lease_seconds: float = Field(
        default=30.0, gt=0, description="A trainer that is silent for this long loses its training to another one."
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
    training_niceness: int = Field(
        default=10,
        ge=0,
        le=19,
        description="Niceness of a training: how far it yields the processors to other processes.",
    )
    training_seed: int = Field(
        default=0, ge=0, description="Seed of every fit, split and bootstrap; recorded with the training."
    )
    training_poll_seconds: float = Field(
        default=0.5, gt=0, description="Time between two looks at the queue while nothing wakes it."
    )
    snapshot_page_rows: int = Field(
        default=20_000, ge=1, description="Archived events read at a time while a snapshot is taken."
    )


def child_environment() -> dict[str, str]:
    """Return the environment of a training process: this one's, with every numerical library held to one thread."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(threads, "1")}
