"""Processes of an aimed run: started by the launcher, waited for, killed, resumed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.rig.launch import EXIT_STATUS
from tests.chaos.rig.watch import is_stopped

PATIENCE_SECONDS = 20.0


class AimedRunError(AssertionError):
    """A run did not go as planned: its fault did not take effect, or something it waited for did not happen."""


async def eventually(check: Callable[[], Awaitable[Any]], *, what: str, seconds: float = PATIENCE_SECONDS) -> Any:  # noqa: ANN401 - what the check returns
    """Return the first true result of ``check``.

    Raises:
        AimedRunError: after ``seconds``; the message says what was awaited.
    """
    deadline = time.monotonic() + seconds
    while not (answer := await check()):
        if time.monotonic() > deadline:
            raise AimedRunError(f"waited {seconds:.0f} s in vain for {what}")
        await asyncio.sleep(0.02)
    return answer


@dataclass
class AimedProcess:
    """A process of a service."""

    name: str
    process: asyncio.subprocess.Process
    port: int
    log: Path
    hold: Path | None = None

    @property
    def service(self) -> str:
        """The service that it runs."""
        return self.name.partition("-")[0]

    def release(self) -> None:
        """Let a held process run."""
        if self.hold is not None:
            self.hold.touch()

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self.process.returncode is not None

    async def died_at_the_trap(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when it has ended with the trap's exit status, which proves that it reached the trap.

        Raises:
            AimedRunError: it keeps running, or ended otherwise.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), timeout=seconds)
        if self.process.returncode != EXIT_STATUS:
            raise AimedRunError(
                f"{self.name} should end with status {EXIT_STATUS}, but has {self.process.returncode} ({self.log})"
            )

    async def stopped_at_the_trap(self) -> None:
        """Return when it is frozen."""

        async def is_frozen() -> bool:
            return is_stopped(self.process.pid)

        await eventually(is_frozen, what=f"{self.name} to freeze ({self.log})")

    def resume(self) -> None:
        """Resume it."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def ready(self) -> None:
        """Return when it reports that it is ready."""

        async def is_ready() -> bool:
            if self.process.returncode is not None:
                raise AimedRunError(f"{self.name} has ended with {self.process.returncode} ({self.log})")
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient(timeout=5) as client:
                    return (await client.get(f"http://127.0.0.1:{self.port}/health/ready")).is_success
            return False

        await eventually(is_ready, what=f"readiness of {self.name} ({self.log})")

    def log_count(self, text: str) -> int:
        """Return how often ``text`` is in its log."""
        return self.log.read_text(errors="replace").count(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """Where a process is interrupted, and how; see ``launch.py``."""

    at: str
    act: str = "exit"
    hit: int = 1
    seconds: float = 1.0
    when: Path | None = None

    def arguments(self, trace: Path) -> list[str]:
        """Return the launcher's arguments for it."""
        given = [
            "--at",
            self.at,
            "--act",
            self.act,
            "--hit",
            str(self.hit),
            "--seconds",
            str(self.seconds),
            "--trace",
            str(trace),
        ]
        return [*given, "--when", str(self.when)] if self.when else given
