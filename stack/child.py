"""One supervised process: starts, watches, restarts and stops it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from backends.clock import Clock
from schemas.errors import FinCoachError
from stack.errors import ProcessFailedError
from stack.folder import birth_of
from stack.probes import answers
from stack.processes import Phase, ProcessSpec, ProcessState, RestartPolicy
from stack.settings import child_environment

POLL_SECONDS = 0.1
WATCH_SECONDS = 3.0
LOG_LIMIT_BYTES = 64 * 1024 * 1024  # a larger log is rotated at the next start, so that the disk never fills
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """Keeps one process running.

    ``follow`` runs as long as the process is wanted; ``stop`` ends it. ``changed`` is called in the event loop after each
    change of ``state``.
    """

    def __init__(self, spec: ProcessSpec, log: Path, *, policy: RestartPolicy, clock: Clock) -> None:
        self.spec = spec
        self.state = ProcessState(name=spec.name, phase=Phase.STOPPED, since=clock.now(), log=str(log))
        self.ready = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None
        self._log = log
        self._policy = policy
        self._clock = clock
        self._process: Process | None = None
        self._deaths: deque[float] = deque()
        self._deaths_in_a_row = 0

    async def follow(self, dependencies: Sequence[Child]) -> None:
        """Start the process when its dependencies are ready, and again whenever it dies; run until cancelled.

        Raises:
            ProcessFailedError: it died too often, or did not become ready in time after its first start.
            FinCoachError: its set-up failed; the message says why.
        """
        if self.spec.prepare is not None:
            self._change(Phase.PREPARING)
            await self._prepare(self.spec.prepare)
        while True:
            self._change(Phase.WAITING)
            if not (self.spec.restarts_alone and self.state.restarts):
                for dependency in dependencies:
                    await dependency.ready.wait()
            ended = await self._run_once()
            self._change(Phase.BACKING_OFF, pid=None, born_at=None, last_exit=ended)
            await asyncio.sleep(self._pause_after(ended))
            self._change(Phase.WAITING, restarts=self.state.restarts + 1)

    async def stop(self) -> None:
        """Ask the process to stop, kill it after its grace time, and return when it is gone. May be called twice."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.send_signal(self.spec.stop_signal)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.spec.grace_seconds):
                        await self._process.wait()
            await self._kill_group()
        if self.state.phase is not Phase.GAVE_UP:
            self._change(Phase.STOPPED, pid=None, born_at=None)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs; SIGKILL goes to its whole group."""
        if self._process is None or self._process.returncode is not None:
            return
        if number is signal.SIGKILL:
            self._signal_group()
        else:
            self._process.send_signal(number)

    async def _prepare(self, prepare: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(prepare)
        except FinCoachError as error:
            self._change(Phase.GAVE_UP, last_exit=str(error))
            raise

    async def _run_once(self) -> str:
        """Run the process once, from start to exit; return how it ended."""
        try:
            if self.spec.before_start is not None:
                await self.spec.before_start()
            self._process = await _spawn(self.spec, self._log)
        except (OSError, FinCoachError) as error:
            return f"could not be started: {error}"
        self._change(Phase.STARTING, pid=self._process.pid, born_at=birth_of(self._process.pid))
        if await self._became_ready(self._process):
            self._deaths_in_a_row = 0
            self._change(Phase.READY)
            self.ready.set()
        elif self._process.returncode is None:
            await self._kill_group()
            return self._late()
        code = await self._watch(self._process)
        self.ready.clear()
        await self._kill_group()
        return _describe_exit(code)

    async def _watch(self, process: Process) -> int:
        """Probe readiness periodically and publish changes; return the exit status."""
        exited = asyncio.ensure_future(process.wait())
        try:
            while not (await asyncio.wait({exited}, timeout=WATCH_SECONDS))[0]:
                phase = Phase.READY if await answers(self.spec.ready) else Phase.NOT_READY
                if phase is not self.state.phase and not exited.done():
                    self._change(phase)
            return exited.result()
        finally:
            exited.cancel()

    async def _became_ready(self, process: Process) -> bool:
        deadline = time.monotonic() + self.spec.ready_within_seconds
        while process.returncode is None and time.monotonic() < deadline:
            if await answers(self.spec.ready):
                return process.returncode is None
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _late(self) -> str:
        """Return the reason "not ready in time"; raise it on the first start, where another attempt would not help."""
        ended = f"not ready within {self.spec.ready_within_seconds:g} s"
        if self.state.restarts == 0:
            raise self._gave_up(ended)
        return ended

    def _pause_after(self, ended: str) -> float:
        now = time.monotonic()
        self._deaths.append(now)
        self._deaths_in_a_row += 1
        while self._deaths[0] < now - self._policy.window_seconds:
            self._deaths.popleft()
        # Slow deaths never fill the window, so deaths in a row without readiness count too.
        if max(len(self._deaths), self._deaths_in_a_row) >= self._policy.deaths:
            raise self._gave_up(f"died {self._policy.deaths} times, most recently with {ended}")
        return self._policy.delay_seconds(len(self._deaths))

    def _gave_up(self, reason: str) -> ProcessFailedError:
        self._change(Phase.GAVE_UP, pid=None, born_at=None, last_exit=reason)
        return ProcessFailedError(self.spec.name, reason, self._log)

    async def _kill_group(self) -> None:
        """Kill the process and its group, whose other members would otherwise outlive it unsupervised."""
        if self._process is not None:
            self._signal_group()
            await self._process.wait()

    def _signal_group(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _change(self, phase: Phase, **fields: object) -> None:
        self.state = msgspec.structs.replace(self.state, phase=phase, since=self._clock.now(), **fields)
        self.changed()


async def _spawn(spec: ProcessSpec, log: Path) -> Process:
    sink = _open_log(log)
    try:
        return await asyncio.create_subprocess_exec(
            *spec.command,
            cwd=spec.working_directory,
            env=child_environment(spec.environment),
            stdin=DEVNULL,
            stdout=sink,
            stderr=STDOUT,
            # A separate session: Ctrl-C reaches the supervisor only, which stops the processes in order.
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
            user=None if spec.user is None else spec.user.uid,
            group=None if spec.user is None else spec.user.gid,
            extra_groups=None if spec.user is None else [],
        )
    finally:
        os.close(sink)


def _open_log(log: Path) -> int:
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _die_with(parent: int) -> Callable[[], None]:
    """Return a hook that runs in the child before exec: it asks the kernel for SIGKILL when the supervisor dies.

    Linux only; elsewhere the next supervisor of the folder ends the leftovers. The hook runs after the change of
    user, which would reset the request.
    """

    def request() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() != parent:  # the supervisor died before the request
                os._exit(1)

    return request


def _describe_exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
