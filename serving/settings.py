"""What a replica reads from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from backends.settings import ProcessSettings


class ServingSettings(ProcessSettings):
    """Sizes and times of a replica."""

    state_ttl_seconds: float = Field(
        default=0.5, ge=0, description="How long a user's state is answered from memory before it is read again."
    )
    state_cache_users: int = Field(default=50_000, ge=1, description="Most users whose states are held in memory.")
    state_timeout_seconds: float = Field(
        default=0.15, gt=0, description="Longest wait for a user's state; after it the cold-start row answers."
    )
    state_connections: int = Field(default=8, ge=1, description="Connections to the database for reading states.")
    heartbeat_seconds: float = Field(default=5.0, gt=0, description="Time between two status messages of a replica.")
    prediction_log_records: int = Field(
        default=20_000, ge=1, description="Most predictions that wait to be logged; further ones are lost and counted."
    )
    largest_body_bytes: int = Field(default=1024 * 1024, ge=1, description="Largest request body that is read.")
    drain_seconds: float = Field(
        default=0.5,
        ge=0,
        description="How long a stopping replica announces its end before it closes, so that callers go elsewhere.",
    )
    grace_seconds: int = Field(default=8, ge=1, description="Longest wait for requests in flight when stopping.")

    @property
    def replica_id(self) -> str:
        """Return the replica's name: stable between starts where instance or port is given."""
        return self.instance or f"serving-{self.port or os.getpid()}"

    @property
    def replica_folder(self) -> Path:
        """Return where the replica keeps the last desired states and their artifacts."""
        return self.folder / f"replica-{self.replica_id}"
