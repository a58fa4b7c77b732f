"""Runs the processes of the stack: starts them in order, restarts dead ones, raises when it gives up, stops in reverse order.

``stack.processes`` describes processes and the rules; ``stack.child`` runs a single process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from backends.clock import Clock, SystemClock
from schemas.errors import SettingsError
from stack.child import Child
from stack.folder import FolderLock, StackState, birth_of, leftovers, write_state
from stack.processes import ProcessSpec, ProcessState, RestartPolicy, start_waves

OnChange = Callable[[tuple[ProcessState, ...]], None]
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LEFTOVERS_SECONDS = 5.0


class Supervisor:
    """Runs processes during its ``async with`` block.

    Entering locks the folder and ends the processes of a killed supervisor; it starts nothing. Leaving stops all
    processes in reverse order. Ctrl-C, SIGTERM and a process that is given up cancel the block. After a signal it ends
    without an error (``stopped_by`` is the signal); after giving up, it raises ``ProcessFailedError``. A second signal
    kills all processes at once. Signals are handled in the main thread only.

        async with Supervisor(specs, folder) as supervisor:
            await supervisor.start("postgres", "broker")
            ...  # migrations, topics
            await supervisor.start()
            await supervisor.run_until_stopped()

    Layout of the folder: ``logs/NAME.log``, ``logs/supervisor.log`` (a JSON line per change), ``state.json``,
    ``supervisor.lock``.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        folder: Path,
        *,
        policy: RestartPolicy | None = None,
        on_change: OnChange | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.stopped_by: signal.Signals | None = None
        self._waves = start_waves(specs)
        self._folder = folder
        self._on_change = on_change
        self._clock = clock or SystemClock()
        rules = policy or RestartPolicy()
        logs = folder / "logs"
        self._children = {s.name: Child(s, logs / f"{s.name}.log", policy=rules, clock=self._clock) for s in specs}
        self._journal = logs / "supervisor.log"
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._lock = FolderLock(folder)
        self._owner: asyncio.Task[object] | None = None
        self._failure: BaseException | None = None
        self._interrupted = False
        self._leaving = False

    async def __aenter__(self) -> Self:
        """Lock the folder.

        Raises:
            FolderInUseError: another supervisor uses it.
        """
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        await asyncio.to_thread(_end, leftovers(self._folder))
        self._owner = asyncio.current_task()
        for child in self._children.values():
            child.changed = self._publisher(child)
        self._listen(signal.SIGINT, signal.SIGTERM)
        self._publish()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop everything; raises ProcessFailedError when a process was given up."""
        self._leaving = True
        try:
            await self._stop_all()
        finally:
            self._listen()
            self._lock.release()
        # This supervisor cancelled the block itself, so the cancellation ends here.
        if self._interrupted and self._owner is not None:
            self._owner.uncancel()
        if self._failure is not None:
            raise self._failure
        return self._interrupted and kind is asyncio.CancelledError

    async def start(self, *names: str) -> None:
        """Start the named processes and their dependencies (all without names); return when they are ready.

        Running processes are left alone. Each start is limited by ``ready_within_seconds`` of its process; a failed
        start ends the whole block.
        """
        wanted = self._with_dependencies(names or self._children)
        for name in wanted - self._followers.keys():
            child = self._children[name]
            needs = [self._children[need] for need in child.spec.depends_on]
            follower = asyncio.create_task(child.follow(needs), name=f"follow {name}")
            follower.add_done_callback(self._follower_ended)
            self._followers[name] = follower
        await asyncio.gather(*(self._children[name].ready.wait() for name in wanted))

    async def run_until_stopped(self) -> None:
        """Wait until a signal, or a process that is given up, ends the block."""
        await asyncio.Event().wait()

    async def run(self) -> None:
        """Start everything and keep it running until a signal: the whole block in one call.

        Raises:
            ProcessFailedError: a process was given up; all others were stopped.
        """
        async with self:
            await self.start()
            await self.run_until_stopped()

    def states(self) -> tuple[ProcessState, ...]:
        """Return the state of each process, in the order given."""
        return tuple(child.state for child in self._children.values())

    def state(self, name: str) -> ProcessState:
        """Return the state of one process."""
        return self._children[name].state

    async def stop(self, name: str) -> None:
        """Stop one process in an orderly way and return when it has ended; ``start`` starts it again."""
        follower = self._followers.pop(name, None)
        if follower is None:
            return
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        child = self._children[name]
        child.ready.clear()
        await child.stop()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process, as a fault would; a killed process is restarted.

        SIGSTOP freezes the process and SIGCONT resumes it, under the same process id.
        """
        self._children[name].signal(number)

    def _with_dependencies(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        open_names = list(names)
        while open_names:
            name = open_names.pop()
            if name not in self._children:
                raise SettingsError(f"there is no process {name}; there are {', '.join(self._children)}")
            if name not in found:
                found.add(name)
                open_names.extend(self._children[name].spec.depends_on)
        return found

    async def _stop_all(self) -> None:
        for follower in self._followers.values():
            follower.cancel()
        await asyncio.gather(*self._followers.values(), return_exceptions=True)
        for wave in reversed(self._waves):
            await asyncio.gather(*(self._children[name].stop() for name in wave if name in self._followers))

    def _follower_ended(self, follower: asyncio.Task[None]) -> None:
        if not follower.cancelled() and (error := follower.exception()) is not None and self._failure is None:
            self._failure = error
            self._interrupt()

    def _interrupt(self) -> None:
        if not self._leaving and not self._interrupted and self._owner is not None:
            self._interrupted = True
            self._owner.cancel()

    def _listen(self, *numbers: signal.Signals) -> None:
        """Handle these signals, and stop handling the others."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            if number in numbers:
                loop.add_signal_handler(number, self._stop_asked, number)
            else:
                loop.remove_signal_handler(number)

    def _stop_asked(self, number: signal.Signals) -> None:
        if self.stopped_by is None and not self._leaving:
            self.stopped_by = number
            self._interrupt()
            return
        for child in self._children.values():
            child.signal(signal.SIGKILL)

    def _publisher(self, child: Child) -> Callable[[], None]:
        def publish() -> None:
            with self._journal.open("ab") as journal:
                journal.write(msgspec.json.encode(child.state) + b"\n")
            self._publish()

        return publish

    def _publish(self) -> None:
        states = self.states()
        state = StackState(supervisor_pid=os.getpid(), written_at=self._clock.now(), processes=states)
        write_state(self._folder, state)
        if self._on_change is not None:
            self._on_change(states)


def _end(pids: Sequence[int]) -> None:
    """Kill the processes of an earlier supervisor with their groups; return when they are gone, or after five seconds."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + _LEFTOVERS_SECONDS
    while time.monotonic() < deadline and any(birth_of(pid) is not None for pid in pids):
        time.sleep(0.05)
