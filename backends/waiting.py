"""Waiting for an event up to a time limit, in a way that a cancellation always ends."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set or ``seconds`` have passed.

    ``asyncio.wait_for`` is not used: before Python 3.12 it swallows a cancellation that comes while the event is being set. A
    task that waits in a loop would then run for ever, and its process would never stop.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
