"""Where the parts of an installation are: written by the process that starts them, read by the command line."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from schemas.errors import SettingsError

FILE = "installation.json"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its service and the base address of its health, readiness and metrics (and, for a replica, predictions)."""

    name: str
    service: str
    url: str


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of one installation, with the database's password: only the owner can read the file."""

    database_url: str
    brokers: str
    store_url: str
    keys_folder: str
    wide_partitions: int
    processes: tuple[Endpoint, ...]

    @property
    def replicas(self) -> tuple[Endpoint, ...]:
        """Return the serving replicas."""
        return tuple(process for process in self.processes if process.service == "serving")


def save(folder: Path, installation: Installation) -> None:
    """Write the installation's file in one move."""
    temporary = folder / f".{FILE}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(installation)))
    temporary.replace(folder / FILE)


def load(folder: Path) -> Installation:
    """Return the installation in ``folder``.

    Raises:
        SettingsError: when nothing has been started there yet.
    """
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Installation)
    except FileNotFoundError as error:
        message = f"nothing was started in {folder.resolve()} yet: run `fincoach-learning up`, or name the folder with --folder"
        raise SettingsError(message) from error
    except msgspec.DecodeError as error:
        message = f"{folder / FILE} is not readable ({error}): run `fincoach-learning up` again"
        raise SettingsError(message) from error
