"""Settings that every process shares; services extend :class:`ProcessSettings` with their own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_FOLDER = Path(".fincoach")


class ProcessSettings(BaseSettings):
    """Where the shared services are, and how a process names itself. Read from ``FINCOACH_…`` variables."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", frozen=True, extra="ignore")

    database_url: SecretStr = Field(
        default=SecretStr("postgresql+asyncpg://fincoach@127.0.0.1:5432/fincoach"),
        description="SQLAlchemy address of PostgreSQL (asyncpg).",
    )
    brokers: str = Field(default="127.0.0.1:9092", description="Kafka bootstrap servers, separated by commas.")
    folder: Path = Field(default=DEFAULT_FOLDER, description="Folder of this installation: keys, logs, local store.")
    store_url: str = Field(
        default="", description="fsspec address of the artifact and snapshot store; empty means `<folder>/store`."
    )
    keys_folder: Path | None = Field(
        default=None, description="Folder of signing and trusted public keys; empty means `<folder>/keys`."
    )
    instance: str = Field(default="", description="Name of this process instance; empty means `<service>-<pid>`.")
    host: str = Field(default="127.0.0.1", description="Address on which the process listens for HTTP.")
    port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Port of the process's HTTP endpoints (health, readiness, metrics); 0 picks a free one.",
    )
    log_level: str = Field(default="INFO", description="Lowest level of log lines that are written.")
    wide_partitions: int = Field(
        default=12, ge=1, description="Partitions of the user-keyed topics; part of the data, never changed in place."
    )
    idle_in_transaction_seconds: float = Field(
        default=3.0,
        gt=0,
        description="After so long the database ends a transaction that does nothing, so that a frozen owner stalls nobody.",
    )

    @property
    def resolved_store_url(self) -> str:
        """Return the store's address, or its default."""
        return self.store_url or f"file://{(self.folder / 'store').resolve()}"

    @property
    def resolved_keys_folder(self) -> Path:
        """Return the folder of the keys, or its default."""
        return self.keys_folder or self.folder / "keys"
