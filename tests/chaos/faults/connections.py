"""Faults of connections: slow, silent, cut; injected by our proxy between a process and a broker or database."""

from __future__ import annotations

import time

from tests.chaos.faults.fault import Evidence, Fault, UnprovenError
from tests.chaos.faults.proxy import FaultProxy


class SlowConnection(Fault):
    """All traffic between a worker and one broker or database is slow."""

    about = "a worker's connections to Postgres or the brokers become slow and narrow (our proxy); proof: chunks were held back"

    @property
    def proxies(self) -> list[FaultProxy]:
        """Return the proxies of the target, ``process>service``; all brokers count as one service."""
        process, _, service = self.target.partition(">")
        return [
            proxy
            for (who, where), proxy in self.context.proxies.items()
            if who == process and where.startswith(service)
        ]

    async def before(self) -> Evidence:
        """Data flows."""
        moved = max(proxy.passed_at for proxy in self.proxies)
        ago = time.monotonic() - moved
        if ago > 3.0:
            raise UnprovenError(f"nothing has passed for {ago:.0f} s")
        return {"passed_seconds_ago": round(ago, 2), "connections": sum(proxy.connections for proxy in self.proxies)}

    async def inject(self) -> None:
        """Slow them down."""
        self._held_before = sum(proxy.held_chunks for proxy in self.proxies)
        for proxy in self.proxies:
            proxy.delay_seconds, proxy.bytes_per_second = self.planned.size, 200_000.0

    async def heal(self) -> None:
        """Restore normal traffic."""
        for proxy in self.proxies:
            proxy.heal()

    async def proof(self) -> Evidence:
        """Chunks were held back."""
        held = sum(proxy.held_chunks for proxy in self.proxies) - self._held_before
        if not held:
            raise UnprovenError("nothing was to pass meanwhile")
        return {"delay_seconds": self.planned.size, "held_chunks": held}


class SilentConnection(SlowConnection):
    """Nothing passes, and neither side is notified."""

    about = "a worker's connections become silent (black hole); proof: chunks were held back, and flow again"

    async def inject(self) -> None:
        """Let nothing pass."""
        self._held_before = sum(proxy.held_chunks for proxy in self.proxies)
        for proxy in self.proxies:
            proxy.silence()


class CutConnection(SlowConnection):
    """Connections are reset, and new ones are refused for a while."""

    about = "a worker's connections are reset and new ones refused for a while; proof: connections were cut and others refused"

    async def inject(self) -> None:
        """Cut them."""
        self._cut_before = sum(proxy.cut_connections for proxy in self.proxies)
        for proxy in self.proxies:
            proxy.cut()

    async def proof(self) -> Evidence:
        """There were connections to cut."""
        cut = sum(proxy.cut_connections for proxy in self.proxies) - self._cut_before
        if not cut:
            raise UnprovenError("there was no connection to cut")
        return {"cut_connections": cut, "refused_connections": sum(proxy.refused_connections for proxy in self.proxies)}
