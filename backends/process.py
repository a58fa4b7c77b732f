"""The life of a process: start its parts, run its tasks together, stop on a signal or when one of them fails."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from backends.telemetry.logs import get_logger

log = get_logger("process")


class Startable(Protocol):
    """A part with a beginning and an end."""

    def start(self) -> Awaitable[None]:
        """Begin."""

    def stop(self) -> Awaitable[None]:
        """End; called in reverse order of starting."""


async def run_process(name: str, *, parts: Sequence[Startable], tasks: Sequence[Coroutine[Any, Any, None]]) -> int:
    """Start ``parts`` in order, run ``tasks`` until SIGTERM, SIGINT or a failure, stop parts in reverse; return the exit status.

    0 after a signal, also one that comes while a part still waits for its server; 1 when a task failed or ended by
    itself (the supervisor then starts the process anew).
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        stack.callback(_close, tasks)
        if not await _started(parts, stack, stopping):
            return 0
        log.info("process_started", name=name)
        status = await _until_first_end([asyncio.ensure_future(task) for task in tasks], stopping)
        log.info("process_stopping", name=name, status=status)
    return status


async def _started(parts: Sequence[Startable], stack: AsyncExitStack, stopping: asyncio.Event) -> bool:
    """Start ``parts`` in order; return False when a signal came first."""
    stop: asyncio.Future[Any] = asyncio.ensure_future(stopping.wait())
    stack.callback(stop.cancel)
    for part in parts:
        start: asyncio.Future[None] = asyncio.ensure_future(part.start())
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return False
        start.result()
        stack.push_async_callback(part.stop)
    return True


def _close(tasks: Sequence[Coroutine[Any, Any, None]]) -> None:
    for task in tasks:
        if inspect.getcoroutinestate(task) == inspect.CORO_CREATED:
            task.close()  # Python complains about one that was never begun


async def _until_first_end(running: list[asyncio.Future[None]], stopping: asyncio.Event) -> int:
    stop: asyncio.Future[Any] = asyncio.ensure_future(stopping.wait())
    ends: list[asyncio.Future[Any]] = [*running, stop]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    status = 0 if stop in done else 1
    for task in done - {stop}:
        log.error("task_ended", exc_info=task.exception() if not task.cancelled() else None)
        status = 1
    for task in ends:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return status
