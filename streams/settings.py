"""Settings of a streams worker."""

from __future__ import annotations

from pydantic import Field

from backends.settings import ProcessSettings


class StreamsSettings(ProcessSettings):
    """How a worker reads, commits and judges; thresholds are data, not settings."""

    batch_records: int = Field(
        default=10_000,
        ge=1,
        le=20_000,
        description="Most records of one batch, which is one transaction; a worker that is behind takes what one fetch brings,"
        " some 7,000 events as the client compresses them.",
    )
    state_cache_mib: int = Field(
        default=32, ge=0, description="Most memory for user states, in MiB, over all partitions of a worker."
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
    dead_letter_ratio: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="More dead letters than this share of a producer's records raise an alert.",
    )
    dead_letter_consecutive: int = Field(
        default=100, ge=1, description="So many dead letters of a producer without a valid record in between raise one."
    )
    dead_letter_records: int = Field(
        default=100, ge=1, description="Records of a producer in the window from which on their ratio counts."
    )
    dead_letter_window_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How far back the limits look; the alert is over when so long nothing exceeded them.",
    )
