"""What the command line reads from the environment."""

from __future__ import annotations

import getpass
import socket

from pydantic import Field

from backends.settings import ProcessSettings


class AdminSettings(ProcessSettings):
    """The issuer of commands, and how long to wait for an answer."""

    issuer: str = Field(
        default="", description="Who gives the commands, as written to the audit log; empty means `<user>@<machine>`."
    )
    answer_seconds: float = Field(
        default=15.0, gt=0, description="How long a command waits for its answer before it says that nobody acts."
    )

    @property
    def resolved_issuer(self) -> str:
        """Return the issuer, or its default."""
        return self.issuer or f"{getpass.getuser()}@{socket.gethostname()}"
