"""The settings of this machine, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MachineSettings(BaseSettings):
    """Addresses of existing services, and the folder of downloads."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", env_ignore_empty=True, frozen=True, extra="ignore")

    cache_folder: Path | None = Field(
        default=None, description="Folder of the broker's jars and of data sets; empty means the user's cache folder."
    )
    database_url: SecretStr | None = Field(
        default=None, description="A Postgres server to use instead of the embedded one."
    )
    brokers: str | None = Field(default=None, description="Kafka addresses to use instead of the embedded broker.")
    java_home: Path | None = Field(
        default=None, validation_alias="JAVA_HOME", description="The Java installation to try first."
    )
    xdg_cache_home: Path | None = Field(
        default=None,
        validation_alias="XDG_CACHE_HOME",
        description="The user's cache folder, if set.",
    )

    @property
    def cache(self) -> Path:
        """The folder for downloads, outside any work tree."""
        return self.cache_folder or (self.xdg_cache_home or Path.home() / ".cache") / "fincoach-learning"


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child process: this process's own plus ``additions``."""
    return {**os.environ, **additions}
