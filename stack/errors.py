"""Errors of starting services and processes on one machine."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import FinCoachError, SettingsError


class SoftwareMissingError(SettingsError):
    """A program that the stack needs is missing; the message says how to get it."""


class DownloadFailedError(FinCoachError):
    """A download failed, or its files are not the tested ones."""


class ServicePreparationError(FinCoachError):
    """The folder of a service could not be set up."""


class FolderInUseError(FinCoachError):
    """Another supervisor or server uses this folder.

    Attributes:
        folder: the folder.
        pid: the process that uses it, where known.
    """

    def __init__(self, folder: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{folder} is in use by {holder}: stop it with `fincoach-learning down`, or choose another folder",
            folder=str(folder),
            pid=pid,
        )
        self.folder = folder
        self.pid = pid


class ProcessFailedError(FinCoachError):
    """A process did not become ready, or died too often.

    Attributes:
        name: the process.
        reason: how its last life ended.
        log: its log file.
    """

    def __init__(self, name: str, reason: str, log: Path) -> None:
        super().__init__(f"{name}: {reason}; the end of {log}:\n{last_lines(log)}", name=name, reason=reason)
        self.name = name
        self.reason = reason
        self.log = log


def last_lines(log: Path, *, lines: int = 15, window_bytes: int = 16_384) -> str:
    """Return the end of a log file, indented for a message, or a note that there is none."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - window_bytes))
            text = source.read().decode(errors="replace")
    except OSError:
        return "  (no log was written)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (the log is empty)"
