"""What can go wrong while services and processes are started on one machine."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import FinCoachError, SettingsError


class SoftwareMissingError(SettingsError):
    """A program that the stack needs is not on this machine; the message says how to get it."""


class DownloadFailedError(FinCoachError):
    """The broker's jars could not be fetched, or are not the ones that were tested."""


class ServicePreparationError(FinCoachError):
    """A service's folder could not be set up."""


class FolderInUseError(FinCoachError):
    """Another supervisor or server works on this folder.

    Attributes:
        folder: the folder in question.
        pid: the process that holds it, where known.
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
    """The end of a log file, indented for use inside a message; says so when there is nothing to show."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - window_bytes))
            text = source.read().decode(errors="replace")
    except OSError:
        return "  (no log was written)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (the log is empty)"
