"""What the command line reads from the environment."""

from __future__ import annotations

import getpass
import socket

from pydantic import Field

from backends.settings import ProcessSettings


class AdminSettings(ProcessSettings):
    """Who gives orders, and how long an answer is waited for."""

    issuer: str = Field(
        default="", description="Who gives the commands, as written to the audit log; empty means `<user>@<machine>`."
    )
    answer_seconds: float = Field(
        default=15.0, gt=0, description="How long a command waits for its answer before it says that nobody acts."
    )

    @property
    def resolved_issuer(self) -> str:
        """Return the issuer with the default filled in."""
        return self.issuer or f"{getpass.getuser()}@{socket.gethostname()}"
