"""Settings of a streams worker."""

from __future__ import annotations

from pydantic import Field

from backends.settings import ProcessSettings


class StreamsSettings(ProcessSettings):
    """How a worker reads, commits and judges; thresholds are data, not settings."""

    batch_records: int = Field(
        default=2_000,
        ge=1,
        le=20_000,
        description="Most records of one fetch; a batch of one partition is one transaction.",
    )
    cached_states: int = Field(
        default=50_000, ge=0, description="Most user states that a worker keeps in memory per partition."
    )
    readiness_seconds: float = Field(
        default=1.0, gt=0, description="Longest time between two looks at the data sets when no pane wakes the agent."
    )
    session_timeout_seconds: float = Field(
        default=10.0, ge=6, description="After so long without a heartbeat the partitions of a worker go to another."
    )
    topic_replication: int = Field(
        default=1, ge=1, description="Replicas of the topics that the worker creates itself."
    )
