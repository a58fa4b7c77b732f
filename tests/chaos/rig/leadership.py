"""Which broker leads each partition, and whether all copies are in sync, as the cluster itself reports it."""

from __future__ import annotations

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

ANSWER_SECONDS = 8.0
_PAUSE_SECONDS = 0.3


class Leadership:
    """Asks the brokers at ``addresses``."""

    def __init__(self, addresses: str) -> None:
        self._addresses = addresses

    async def led_by(self, node: int) -> int:
        """Return how many partitions a broker leads."""
        return sum(leader == node for leader, _, _ in await self._partitions())

    async def is_whole(self) -> bool:
        """Return whether every partition has a leader and all its copies in sync."""
        return all(leader >= 0 and in_step == copies for leader, in_step, copies in await self._partitions())

    async def until_led_by_others(self, node: int, *, seconds: float) -> float | None:
        """Wait until ``node`` leads nothing; return how many seconds that took, or None if it did not happen in time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < seconds:
            try:
                partitions = await self._partitions()
                if partitions and all(leader not in {node, -1} for leader, _, _ in partitions):
                    return loop.time() - began
            except (KafkaError, OSError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)
        return None

    async def until_whole(self, *, seconds: float) -> bool:
        """Wait until all copies are in sync again; return False if they are not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while loop.time() < deadline:
            try:
                if await self.is_whole():
                    return True
            except (KafkaError, OSError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)
        return False

    async def _partitions(self) -> list[tuple[int, int, int]]:
        """Return (leader, copies in sync, copies) of every partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._addresses, request_timeout_ms=3_000)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await admin.start()
                topics = await admin.describe_topics()
        finally:
            await admin.close()
        return [
            (part["leader"], len(part["isr"]), len(part["replicas"]))
            for topic in topics
            for part in topic["partitions"]
        ]
