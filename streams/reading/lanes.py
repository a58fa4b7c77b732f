"""Lanes: the batches of one partition strictly one after the other, those of different partitions side by side.

While one batch waits for the database another one is decoded. No two lanes lock the same rows: a lane has its own
row of the ledger, and a user's events, hence the user's state, are in one partition alone.

Few lanes with large batches: a batch costs something of its own and writes the state of each of its users once, so the
same memory does more in two lanes than in three.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

MOST_AT_WORK = 2  # lanes of a topic, each with a connection: one computes while the other waits for server or disk
MOST_WAITING = 2  # batches of all lanes, at most one in each: more would only be memory


class Lanes(Generic[Key, Item]):
    """Calls ``work`` with the items of each key in their order; ``work`` itself decides about its errors."""

    def __init__(self, work: Callable[[Key, Item], Awaitable[None]]) -> None:
        self._work = work
        self._waiting: dict[Key, Item] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._at_work = asyncio.Semaphore(MOST_AT_WORK)
        self._service = asyncio.Condition()
        self._stopping = False

    async def put(self, key: Key, item: Item) -> None:
        """Hand ``item`` to the lane of ``key``; waits while there is no room, and drops it after :meth:`stop`."""
        async with self._service:
            await self._service.wait_for(lambda: self._stopping or self._has_service(key))
            if self._stopping:
                return
            self._waiting[key] = item
        if key not in self._tasks:
            self._tasks[key] = asyncio.ensure_future(self._run(key))

    async def stop(self) -> None:
        """Finish what is at work; take nothing more, and drop what waits."""
        self._stopping = True
        self._waiting.clear()
        async with self._service:
            self._service.notify_all()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _has_service(self, key: Key) -> bool:
        return key not in self._waiting and len(self._waiting) < MOST_WAITING

    async def _run(self, key: Key) -> None:
        """Work until nothing waits: an idle lane is no task."""
        try:
            while key in self._waiting:
                async with self._at_work:
                    await self._work_on_next(key)
        finally:
            del self._tasks[key]

    async def _work_on_next(self, key: Key) -> None:
        if key not in self._waiting:  # dropped while the lane waited for its turn
            return
        item = self._waiting.pop(key)
        async with self._service:
            self._service.notify_all()
        await self._work(key, item)
