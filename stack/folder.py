"""The supervisor's own files in its folder: a lock, and the process states for others to read."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from stack.errors import FolderInUseError
from stack.processes import ProcessState

LOCK_FILE = "supervisor.lock"
STATE_FILE = "state.json"
# A reader that checks the lock holds it for an instant.
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_SECONDS = 0.05
# The kernel records a process's start in ticks of 10 ms.
_BIRTH_TOLERANCE_SECONDS = 0.1


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """The states of all processes of one supervisor, as last written.

    Attributes:
        supervisor_pid: the supervisor that wrote it; it may be gone (see ``running_supervisor``).
        written_at: when it was written.
        processes: in the order given.
    """

    supervisor_pid: int
    written_at: datetime
    processes: tuple[ProcessState, ...]


class FolderLock:
    """Allows one supervisor per folder. The kernel frees the lock however its owner ends; children do not inherit it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write this process's id into its file.

        Raises:
            FolderInUseError: another supervisor holds it.
        """
        descriptor = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _locked(descriptor, attempts=_LOCK_ATTEMPTS):
            os.close(descriptor)
            raise FolderInUseError(self._folder, _written_pid(self._folder))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Free the lock; may be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def running_supervisor(folder: Path) -> int | None:
    """Return the process id of the live supervisor of ``folder``, or None."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _locked(descriptor, attempts=1) else _written_pid(folder)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, *, attempts: int) -> bool:
    for attempt in range(attempts):
        if attempt:
            time.sleep(_LOCK_PAUSE_SECONDS)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _written_pid(folder: Path) -> int | None:
    text = (folder / LOCK_FILE).read_text()
    return int(text) if text.isdigit() else None


def write_state(folder: Path, state: StackState) -> None:
    """Replace the state file atomically: a reader sees the old or the new one, never a part."""
    draft = folder / f".{STATE_FILE}"
    draft.write_bytes(msgspec.json.encode(state))
    draft.replace(folder / STATE_FILE)


def read_state(folder: Path) -> StackState | None:
    """Return the states as last written, or None when they cannot be read."""
    try:
        return msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=StackState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def birth_of(pid: int) -> float | None:
    """Return when the process started, in seconds since the Unix epoch; None when it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def leftovers(folder: Path) -> tuple[int, ...]:
    """Return the live processes of an earlier supervisor; ids that now belong to other processes are excluded."""
    state = read_state(folder)
    return tuple(s.pid for s in state.processes if s.pid is not None and _is_same(s)) if state else ()


def _is_same(state: ProcessState) -> bool:
    born_at = birth_of(state.pid) if state.pid is not None else None
    return born_at is not None and state.born_at is not None and abs(born_at - state.born_at) < _BIRTH_TOLERANCE_SECONDS
