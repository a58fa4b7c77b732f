"""Settings of a streams worker."""

from __future__ import annotations

from pydantic import Field

from backends.settings import ProcessSettings


class StreamsSettings(ProcessSettings):
    """How a worker reads, commits and judges. Thresholds are data, not settings."""

    batch_records: int = Field(
        default=10_000,
        ge=1,
        le=20_000,
        description="Maximum records of one batch, which is one transaction. A worker that is behind takes what one fetch brings:"
        " about 7,000 events, compressed by the client.",
    )
    state_cache_mib: int = Field(
        default=32, ge=0, description="Maximum memory for cached user states, in MiB, over all partitions of a worker."
    )
    readiness_seconds: float = Field(
        default=1.0,
        gt=0,
        description="Maximum time between two evaluations of the data sets when no pane wakes the agent.",
    )
    session_timeout_seconds: float = Field(
        default=10.0,
        ge=6,
        description="After this long without a heartbeat, a worker's partitions move to another worker.",
    )
    topic_replication: int = Field(
        default=1, ge=1, description="Replicas of the topics that the worker creates itself."
    )
    dead_letter_ratio: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="An alert is raised when more than this share of a producer's records are dead letters.",
    )
    dead_letter_consecutive: int = Field(
        default=100,
        ge=1,
        description="An alert is raised after this many dead letters of a producer without a valid record in between.",
    )
    dead_letter_records: int = Field(
        default=100, ge=1, description="The ratio counts once the window holds this many records of a producer."
    )
    dead_letter_window_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Length of the limits' sliding window. The alert ends when no limit was exceeded for this long.",
    )
