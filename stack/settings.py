"""What the environment says about this machine: the only place of this room that reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MachineSettings(BaseSettings):
    """Addresses of services that are there already, and where downloads are kept between runs."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", env_ignore_empty=True, frozen=True, extra="ignore")

    cache_folder: Path | None = Field(
        default=None, description="Where the broker's jars and data sets are kept; empty means the user's cache folder."
    )
    database_url: SecretStr | None = Field(
        default=None, description="A Postgres server to use instead of the embedded one."
    )
    brokers: str | None = Field(default=None, description="Kafka addresses to use instead of the embedded broker.")
    java_home: Path | None = Field(
        default=None, validation_alias="JAVA_HOME", description="A Java installation that is tried first."
    )
    xdg_cache_home: Path | None = Field(
        default=None,
        validation_alias="XDG_CACHE_HOME",
        description="The user's cache folder, where the desktop names one.",
    )

    @property
    def cache(self) -> Path:
        """The folder for downloads, outside any work tree."""
        return self.cache_folder or (self.xdg_cache_home or Path.home() / ".cache") / "fincoach-learning"


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: this process's own, with ``additions`` on top."""
    return {**os.environ, **additions}
