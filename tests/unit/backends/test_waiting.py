"""Waiting that ends when its event comes, when its time is over, and whenever it is cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest

from backends.waiting import wait_at_most


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancellation_gets_through_whenever_it_comes(steps: int) -> None:
    """A cancellation ends the wait, even while the event is being set."""
    event = asyncio.Event()

    async def wait_for_ever() -> None:
        while True:
            await wait_at_most(event, 10)
            event.clear()

    waiting = asyncio.ensure_future(wait_for_ever())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=1)
    waiting.cancel()
    assert done
    assert waiting.cancelled()


async def test_it_waits_for_its_event_and_no_longer() -> None:
    """The wait ends as soon as its event is set."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, event.set)
    began = time.monotonic()
    await wait_at_most(event, 10)
    assert event.is_set()
    assert time.monotonic() - began < 5


async def test_it_waits_no_longer_than_it_may() -> None:
    """The wait ends at its time limit."""
    await wait_at_most(asyncio.Event(), 0.01)
