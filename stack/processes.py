"""What the supervisor runs: the description of a process, its state, and the rules about order and restarts.

Values and pure rules; starting and stopping lives in ``stack.child`` and ``stack.supervisor``.
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
"""Answers whether a process can be used; may raise OSError for "not yet"."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """How one process is started, recognised as ready, and stopped.

    Attributes:
        name: unique within a supervisor; also the name of its log file.
        command: program and arguments; no shell is involved.
        ready: answers True once the process can be used (see ``stack.probes``).
        environment: additions to the supervisor's own environment.
        working_directory: where it runs; the supervisor's own when None.
        depends_on: processes that must be ready before this one starts, and that are stopped after it.
        restarts_alone: after a death it is started again without waiting for what it depends on.
        stop_signal: asks for an orderly end (SIGINT is Postgres's fast shutdown).
        grace_seconds: after this long without an end, SIGKILL for the process and its group.
        ready_within_seconds: the longest wait for the first True of ``ready`` after a start.
        user: the account to run as; the supervisor's own when None.
        prepare: blocking set-up, called in a thread once before the first start, when the folder is already taken; an
            error is final. May take as long as it needs (a download, for example).
        before_start: awaited before each start, for example to clear what a killed predecessor left.
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
    """Where a process stands."""

    PREPARING = "preparing"
    """Its one-time set-up runs."""
    WAITING = "waiting"
    """For its dependencies."""
    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"
    """It was ready and runs, but does not answer that it is: frozen, or cut off from what it needs."""
    BACKING_OFF = "backing_off"
    """It died; the next start follows after a pause."""
    STOPPED = "stopped"
    GAVE_UP = "gave_up"
    """It died too often; nothing restarts it."""


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the supervisor sees it.

    Attributes:
        pid: the process, or None while there is none.
        born_at: its start in seconds since the epoch as the kernel has it: tells it from a later owner of the pid.
        restarts: starts after the first.
        since: when this phase began.
        last_exit: how the last life ended, in words.
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
    """How fast a dead process comes back, and when it is given up.

    Attributes:
        deaths: this many within the window, or this many in a row without becoming ready, and it is given up.
        window_seconds: the window.
        first_delay_seconds: pause after the first death; doubles with each further one in the window.
        longest_delay_seconds: the pause grows no further.
    """

    deaths: int = 5
    window_seconds: float = 60.0
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 10.0

    def delay_seconds(self, deaths: int) -> float:
        """The pause before the next start after ``deaths`` (>= 1) recent ones."""
        return min(self.longest_delay_seconds, self.first_delay_seconds * 2.0 ** (deaths - 1))


def start_waves(specs: Sequence[ProcessSpec]) -> list[tuple[str, ...]]:
    """Names in waves: each wave depends only on earlier ones. Reversed, it is the order of stopping.

    Raises:
        SettingsError: two processes share a name, a dependency is unknown, or dependencies run in a circle.
    """
    graph = {spec.name: spec.depends_on for spec in specs}
    if len(graph) != len(specs):
        raise SettingsError("two processes have the same name")
    unknown = {name for needs in graph.values() for name in needs} - graph.keys()
    if unknown:
        raise SettingsError(f"processes depend on {', '.join(sorted(unknown))}, which nobody starts")
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise SettingsError(f"processes wait for each other in a circle: {' -> '.join(error.args[1])}") from error
    waves = []
    while sorter.is_active():
        wave = sorter.get_ready()
        waves.append(tuple(sorted(wave)))
        sorter.done(*wave)
    return waves
