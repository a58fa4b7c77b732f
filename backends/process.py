"""The life of a process: start its parts, run its tasks together, stop on a signal or when one of them fails.

It always ends, whatever a stopping part waits for (mostly a broker that is away). A process that lives on with half of its
tasks is worse than one that is gone: all that matters is committed in transactions.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, NoReturn, Protocol

from backends.telemetry.logs import get_logger

log = get_logger("process")
# Less than the time after which the process is killed: 15 s (stack), 20 s (docker-compose.yml).
STOPPING_SECONDS = 14.0


class Startable(Protocol):
    """A part with a beginning and an end."""

    def start(self) -> Awaitable[None]:
        """Begin."""

    def stop(self) -> Awaitable[None]:
        """End; called in reverse order of starting."""


def run_to_exit(
    life: Coroutine[Any, Any, int], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> NoReturn:
    """Run ``life`` in a new event loop and exit with the status that it returns.

    The loop is not closed: closing waits for the tasks that it cancels, and Faust's swallow the cancellation.
    """
    _leave(asyncio.Runner(loop_factory=loop_factory).run(life))


async def run_process(name: str, *, parts: Sequence[Startable], tasks: Sequence[Coroutine[Any, Any, None]]) -> int:
    """Start ``parts`` in order, run ``tasks`` until SIGTERM, SIGINT or a failure, stop parts in reverse; return the exit status.

    0 after a signal, even while a part still waits for its server; 1 when a task failed or ended by itself (the
    supervisor then restarts the process). Parts that have not stopped after :data:`STOPPING_SECONDS` are abandoned.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stack = AsyncExitStack()
    stack.callback(_close, tasks)
    running: list[asyncio.Future[None]] = []
    status = 1
    try:
        if await _started(parts, stack, stopping):
            log.info("process_started", name=name)
            running = [asyncio.ensure_future(task) for task in tasks]
            status = await _first_end(running, stopping)
        else:
            status = 0
    finally:
        log.info("process_stopping", name=name, status=status)
        with _gone_in_time(status):
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await stack.aclose()
    return status


async def _started(parts: Sequence[Startable], stack: AsyncExitStack, stopping: asyncio.Event) -> bool:
    """Start ``parts`` in order; return False if a signal came first."""
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
            task.close()  # Python warns about a coroutine that was never awaited


async def _first_end(running: list[asyncio.Future[None]], stopping: asyncio.Event) -> int:
    """Wait for a signal or for the first task that ends; return the exit status."""
    stop: asyncio.Future[Any] = asyncio.ensure_future(stopping.wait())
    done, _ = await asyncio.wait([*running, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    status = 0 if stop in done else 1
    for task in done - {stop}:
        log.error("task_ended", exc_info=task.exception() if not task.cancelled() else None)
        status = 1
    return status


@contextmanager
def _gone_in_time(status: int) -> Iterator[None]:
    """Exit with ``status`` if the block takes too long; a thread does it, because a hanging part may swallow a cancellation."""
    timer = threading.Timer(STOPPING_SECONDS, _leave_behind, (status,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave_behind(status: int) -> None:
    log.error("stopping_took_too_long", seconds=STOPPING_SECONDS)
    _leave(status)


def _leave(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
