"""The life of a process: parts in order, tasks together, and the exit status that its supervisor acts on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable

import pytest

from backends.process import run_process
from tools.reference.packages import ROOT


class Part:
    """A part that writes down when it begins and ends."""

    def __init__(self, name: str, journal: list[str], *, waits: asyncio.Event | None = None) -> None:
        self._name, self._journal, self._waits = name, journal, waits
        self.begun = asyncio.Event()

    async def start(self) -> None:
        """Begin, when what it waits for is there."""
        self._journal.append(f"{self._name} starts")
        self.begun.set()
        if self._waits is not None:
            await self._waits.wait()

    async def stop(self) -> None:
        """End."""
        self._journal.append(f"{self._name} stops")


async def works_until_cancelled(begun: asyncio.Event, journal: list[str]) -> None:
    """A task that goes on until it is told to end."""
    try:
        begun.set()
        await asyncio.Event().wait()
    finally:
        journal.append("task ends")


async def fails() -> None:
    """A task with a bug."""
    message = "a bug"
    raise RuntimeError(message)


async def returns() -> None:
    """A task that ends by itself."""


async def cancels_itself() -> None:
    """A task that gives up without an error."""
    raise asyncio.CancelledError


async def signalled(running: Awaitable[int], begun: asyncio.Event, number: signal.Signals) -> int:
    """Return the exit status after a signal that comes once the process has begun."""
    life = asyncio.ensure_future(running)
    async with asyncio.timeout(5):
        await begun.wait()
        os.kill(os.getpid(), number)
        return await life


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_everything_in_reverse_order_with_status_0(number: signal.Signals) -> None:
    """A signal stops all parts in reverse order, with exit status 0."""
    journal: list[str] = []
    begun = asyncio.Event()
    life = run_process(
        "test", parts=(Part("first", journal), Part("second", journal)), tasks=(works_until_cancelled(begun, journal),)
    )
    assert await signalled(life, begun, number) == 0
    assert journal == ["first starts", "second starts", "task ends", "second stops", "first stops"]


@pytest.mark.parametrize("ends", [fails, returns, cancels_itself])
@pytest.mark.expects_errors("task_ended")
async def test_a_task_that_ends_takes_the_process_with_it(ends: object) -> None:
    """The process ends when one of its tasks ends."""
    journal: list[str] = []
    tasks = (works_until_cancelled(asyncio.Event(), journal), ends())  # type: ignore[operator]
    assert await run_process("test", parts=(Part("only", journal),), tasks=tasks) == 1
    assert journal == ["only starts", "task ends", "only stops"]


async def test_a_signal_ends_a_process_that_still_waits_for_its_server() -> None:
    """A signal ends a process that still waits for its server."""
    journal: list[str] = []
    waiting = Part("second", journal, waits=asyncio.Event())
    life = run_process(
        "test", parts=(Part("first", journal), waiting), tasks=(works_until_cancelled(asyncio.Event(), journal),)
    )
    assert await signalled(life, waiting.begun, signal.SIGTERM) == 0
    assert journal == ["first starts", "second starts", "first stops"]


async def test_a_part_that_cannot_start_ends_the_process_with_its_error() -> None:
    """A part that cannot start ends the process with its error."""
    journal: list[str] = []

    class Broken(Part):
        async def start(self) -> None:
            message = "the port is taken"
            raise OSError(message)

    with pytest.raises(OSError, match="the port is taken"):
        await run_process("test", parts=(Part("first", journal), Broken("second", journal)), tasks=(returns(),))
    assert journal == ["first starts", "first stops"]


HANGING = """
import asyncio, os, signal, sys
from backends import process

process.STOPPING_SECONDS = 0.5

async def swallows(times):
    while times:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            times -= 1

class Part:
    async def start(self): pass
    async def stop(self): await swallows({stop})

async def signalled():
    os.kill(os.getpid(), signal.SIGTERM)
    await swallows({task} + 1)

async def failed():
    raise RuntimeError("a bug")

class Broken(Part):
    async def start(self): raise OSError("the port is taken")

cannot_start = failed

async def life():
    left = asyncio.ensure_future(swallows({left}))
    parts = (Part(), Broken()) if "{first}" == "cannot_start" else (Part(),)
    return await process.run_process("test", parts=parts, tasks=({first}(),))

process.run_to_exit(life())
"""


@pytest.mark.parametrize(("first", "status"), [("signalled", 0), ("failed", 1), ("cannot_start", 1)])
@pytest.mark.parametrize("hangs", ["stop", "task", "left"])
def test_a_process_ends_whatever_hangs(first: str, status: int, hangs: str) -> None:
    """A process ends even if one of its parts hangs."""
    program = HANGING.format(first=first, **{name: 99 if name == hangs else 0 for name in ("stop", "task", "left")})
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == status, ran.stderr
    cut_short = hangs == "stop" or (hangs, first) == ("task", "signalled")
    assert ("stopping_took_too_long" in ran.stdout + ran.stderr) == cut_short
