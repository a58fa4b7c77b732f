"""What the deployer reads from the environment."""

from __future__ import annotations

from pydantic import Field

from backends.settings import ProcessSettings


class DeployerSettings(ProcessSettings):
    """Limits of verification, and how much is kept."""

    verification_seconds: float = Field(
        default=30.0, gt=0, description="Longest time for the trial load of a candidate in its child process."
    )
    slowest_prediction_ms: float = Field(
        default=50.0, gt=0, description="A candidate whose median prediction takes longer is rejected."
    )
    versions_kept: int = Field(
        default=5,
        ge=1,
        description="Newest learned versions whose artifacts are kept, beside active, previous and baseline.",
    )
    retention_seconds: float = Field(
        default=3600.0, gt=0, description="Time between two clean-ups of the artifact store."
    )
