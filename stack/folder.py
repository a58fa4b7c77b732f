"""What a supervisor keeps in its folder besides its children's data: a lock, and the states for others to read."""

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
# A reader that looks whether the lock is held holds it for an instant itself.
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_SECONDS = 0.05
# The kernel counts a process's birth in ticks of 10 ms.
_BIRTH_TOLERANCE_SECONDS = 0.1


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """The states of all processes of one supervisor, as last written.

    Attributes:
        supervisor_pid: who wrote it; it may be gone (see ``running_supervisor``).
        written_at: when.
        processes: in the order in which they were given.
    """

    supervisor_pid: int
    written_at: datetime
    processes: tuple[ProcessState, ...]


class FolderLock:
    """One supervisor a folder. The kernel frees the lock however its owner ends, and children do not inherit it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write this process's id into it.

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
    """The process id of the live supervisor of ``folder``, or None."""
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
    """Replace the state file in one step: a reader sees the old or the new, never half of one."""
    draft = folder / f".{STATE_FILE}"
    draft.write_bytes(msgspec.json.encode(state))
    draft.replace(folder / STATE_FILE)


def read_state(folder: Path) -> StackState | None:
    """The states as last written, or None when there are none that can be read."""
    try:
        return msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=StackState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def birth_of(pid: int) -> float | None:
    """When the process was born, in seconds since the epoch; None when it is gone (one nobody has reaped is gone)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def leftovers(folder: Path) -> tuple[int, ...]:
    """Processes of an earlier supervisor that still live. A process id that somebody else has by now is not one."""
    state = read_state(folder)
    return tuple(s.pid for s in state.processes if s.pid is not None and _is_same(s)) if state else ()


def _is_same(state: ProcessState) -> bool:
    born_at = birth_of(state.pid) if state.pid is not None else None
    return born_at is not None and state.born_at is not None and abs(born_at - state.born_at) < _BIRTH_TOLERANCE_SECONDS
