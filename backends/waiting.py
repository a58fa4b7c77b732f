"""Waiting for what may come sooner than its time, in a way that a cancellation always ends."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set or ``seconds`` have passed.

    Not by ``asyncio.wait_for``: before Python 3.12 it swallows a cancellation that comes while the event is being set,
    and a task that waits in a loop would run on for ever, and its process never stop.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
