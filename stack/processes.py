"""The description of a supervised process, its state, and the rules of order and restarts.

Values and pure rules; ``stack.child`` and ``stack.supervisor`` start and stop processes.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import msgspec

from schemas.errors import SettingsError
from stack.accounts import Account

Probe = Callable[[], Awaitable[bool]]
"""Returns whether a process is ready; may raise OSError for "not yet"."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """How one process is started, recognised as ready, and stopped.

    Attributes:
        name: unique within a supervisor; also the name of its log file.
        command: program and arguments; no shell is involved.
        ready: returns True once the process is ready (see ``stack.probes``).
        environment: additions to the supervisor's environment.
        working_directory: where it runs; the supervisor's own when None.
        depends_on: processes that must be ready before this one starts, and that stop after it.
        restarts_alone: a restart does not wait for the dependencies.
        stop_signal: asks for an orderly end (SIGINT is Postgres's fast shutdown).
        grace_seconds: time to stop before the process and its group get SIGKILL.
        ready_within_seconds: longest wait after a start until ``ready`` first returns True.
        user: the account to run as; the supervisor's own when None.
        prepare: blocking set-up, called once in a thread before the first start, with the folder locked; an error is
            final. It has no time limit (it may download, for example).
        before_start: awaited before each start, for example to clean up after a killed predecessor.
    """

    name: str
    command: tuple[str, ...]
    ready: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    depends_on: tuple[str, ...] = ()
    restarts_alone: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    ready_within_seconds: float = 60.0
    user: Account | None = None
    prepare: Callable[[], None] | None = None
    before_start: Callable[[], Awaitable[None]] | None = None


class Phase(StrEnum):
    """The phase of a process."""

    PREPARING = "preparing"
    """Its one-time set-up runs."""
    WAITING = "waiting"
    """It waits for its dependencies."""
    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"
    """It runs and was ready, but its probe fails: it is frozen, or cut off from a dependency."""
    BACKING_OFF = "backing_off"
    """It died; the next start follows after a pause."""
    STOPPED = "stopped"
    GAVE_UP = "gave_up"
    """It died too often; it is not restarted."""


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the supervisor sees it.

    Attributes:
        pid: the process, or None while there is none.
        born_at: its start in seconds since the Unix epoch, by the kernel; distinguishes it from a later owner of the pid.
        restarts: starts after the first.
        since: start of this phase.
        last_exit: how the last run ended, in words.
        log: its log file.
    """

    name: str
    phase: Phase
    since: datetime
    log: str
    pid: int | None = None
    born_at: float | None = None
    restarts: int = 0
    last_exit: str | None = None


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How soon a dead process is restarted, and when it is given up.

    Attributes:
        deaths: a process is given up after this many deaths within the window, or in a row without becoming ready.
        window_seconds: length of the window.
        first_delay_seconds: pause after the first death; it doubles with each further one in the window.
        longest_delay_seconds: longest pause.
    """

    deaths: int = 5
    window_seconds: float = 60.0
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 10.0

    def delay_seconds(self, deaths: int) -> float:
        """Return the pause before the next start after ``deaths`` (>= 1) recent ones."""
        return min(self.longest_delay_seconds, self.first_delay_seconds * 2.0 ** (deaths - 1))


def start_waves(specs: Sequence[ProcessSpec]) -> list[tuple[str, ...]]:
    """Return the names in waves: each wave depends on earlier ones only. The reverse is the order of stopping.

    Raises:
        SettingsError: two processes share a name, a dependency is unknown, or dependencies form a cycle.
    """
    graph = {spec.name: spec.depends_on for spec in specs}
    if len(graph) != len(specs):
        raise SettingsError("two processes have the same name")
    unknown = {name for needs in graph.values() for name in needs} - graph.keys()
    if unknown:
        raise SettingsError(f"processes depend on {', '.join(sorted(unknown))}, which no process provides")
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise SettingsError(f"processes wait for each other in a cycle: {' -> '.join(error.args[1])}") from error
    waves = []
    while sorter.is_active():
        wave = sorter.get_ready()
        waves.append(tuple(sorted(wave)))
        sorter.done(*wave)
    return waves
