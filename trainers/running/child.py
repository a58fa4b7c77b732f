"""The parent's side of a training process: start it, read its messages, and end it.

A training is a process of its own: it may leak, crash or be killed without harm to the queue, and it dies with its
parent. It is a fresh interpreter rather than a fork: torch and threads do not survive forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import psutil

from backends.telemetry.logs import get_logger
from schemas.errors import FinCoachError
from trainers.pipe import WorkFailed, WorkProgressed, WorkResult, line_of, message_of
from trainers.settings import child_environment

if TYPE_CHECKING:
    from trainers.pipe import WorkMessage, WorkOrder

log = get_logger("trainers.running.child")
LONGEST_LINE_BYTES = 4 * 1024 * 1024
MEMORY_CHECK_SECONDS = 1.0
COMMAND = (sys.executable, "-m", "trainers.running.worker")


class TrainingProcessError(FinCoachError):
    """The training process ended without a result."""


class TrainingProcess:
    """Runs one order in a child process, once."""

    def __init__(self, order: WorkOrder, *, timeout_seconds: float, grace_seconds: float, memory_bytes: int) -> None:
        self._order = order
        self._timeout_seconds = timeout_seconds
        self._grace_seconds = grace_seconds
        self._memory_bytes = memory_bytes
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, on_progress: Callable[[WorkProgressed], None]) -> WorkResult:
        """Return the child's result. After a cancellation the child has ended before this returns.

        Raises:
            TrainingProcessError: it died, reported an error, took too long or too much memory.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE_BYTES,
            env=child_environment(),
        )
        watch = asyncio.create_task(self._watch_memory(process))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._give_order(process)
                return await self._listen(process, on_progress)
        except TimeoutError as error:
            raise TrainingProcessError(f"the training took longer than {self._timeout_seconds:.0f} s") from error
        finally:
            watch.cancel()
            await self._end(process)

    @property
    def pid(self) -> int | None:
        """Return the child's process id once it was started."""
        return self._process.pid if self._process else None

    async def _give_order(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - asked for as a pipe
        with contextlib.suppress(ConnectionError):  # it died at once; its exit status says more
            process.stdin.write(line_of(self._order))
            await process.stdin.drain()

    async def _listen(
        self, process: asyncio.subprocess.Process, on_progress: Callable[[WorkProgressed], None]
    ) -> WorkResult:
        assert process.stdout is not None  # noqa: S101 - asked for as a pipe
        async for line in process.stdout:
            message = _read(line)
            if isinstance(message, WorkResult):
                return message
            if isinstance(message, WorkFailed):
                raise TrainingProcessError(message.error)
            on_progress(message)
        raise TrainingProcessError(f"the training process ended with status {await process.wait()} and no result")

    async def _watch_memory(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(psutil.Error):
            child = psutil.Process(process.pid)
            while process.returncode is None:
                resident = child.memory_info().rss
                if resident > self._memory_bytes:
                    log.error("training_memory_exceeded", resident_bytes=resident, limit_bytes=self._memory_bytes)
                    process.kill()
                    return
                await asyncio.sleep(MEMORY_CHECK_SECONDS)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask the child to stop, then kill it; shielded, so that a second cancellation leaves no orphan."""
        await asyncio.shield(self._ended(process))

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        for act in (process.terminate, process.kill):
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    act()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace_seconds):
                    await process.wait()
                    return


def _read(line: bytes) -> WorkMessage:
    try:
        message: WorkMessage = message_of.decode(line)
    except msgspec.MsgspecError as error:
        raise TrainingProcessError(f"the training process sent an unreadable message: {line[:200]!r}") from error
    return message
