"""What the environment says about this machine: the only place of this room that reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MachineSettings(BaseSettings):
    """Addresses of services that are there already, and where downloads are kept between runs.

    Attributes:
        cache_folder: where the broker's jars are kept; ``FINCOACH_CACHE_FOLDER``, else the user's cache folder.
        database_url: a Postgres server to use instead of the embedded one; ``FINCOACH_DATABASE_URL``.
        brokers: Kafka addresses to use instead of the embedded broker; ``FINCOACH_BROKERS``.
        java_home: a Java installation that is tried first; ``JAVA_HOME``.
    """

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", env_ignore_empty=True, frozen=True, extra="ignore")

    cache_folder: Path | None = None
    database_url: SecretStr | None = None
    brokers: str | None = None
    java_home: Path | None = Field(default=None, validation_alias="JAVA_HOME")
    xdg_cache_home: Path | None = Field(default=None, validation_alias="XDG_CACHE_HOME")

    @property
    def cache(self) -> Path:
        """The folder for downloads, outside any work tree."""
        return self.cache_folder or (self.xdg_cache_home or Path.home() / ".cache") / "fincoach-learning"


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: this process's own, with ``additions`` on top."""
    return {**os.environ, **additions}
