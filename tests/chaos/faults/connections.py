"""Faults of connections: slow, silent, cut; by a proxy of ours between a process and a service."""

from __future__ import annotations

import time

from tests.chaos.faults.fault import Evidence, Fault, UnprovenError
from tests.chaos.faults.proxy import FaultProxy


class SlowConnection(Fault):
    """Everything between a worker and one service takes long."""

    about = "a worker's connections to Postgres or the brokers get slow and narrow (our proxy); proof: chunks were held back"

    @property
    def proxies(self) -> list[FaultProxy]:
        """Return the proxies of the target, which is ``process>service``; all brokers go as one."""
        process, _, service = self.target.partition(">")
        return [
            proxy for (who, where), proxy in self.site.proxies.items() if who == process and where.startswith(service)
        ]

    async def before(self) -> Evidence:
        """Bytes flow."""
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
        """Let everything pass."""
        for proxy in self.proxies:
            proxy.heal()

    async def proof(self) -> Evidence:
        """Chunks were held back."""
        held = sum(proxy.held_chunks for proxy in self.proxies) - self._held_before
        if not held:
            raise UnprovenError("nothing was to pass meanwhile")
        return {"delay_seconds": self.planned.size, "held_chunks": held}


class SilentConnection(SlowConnection):
    """Nothing passes and nobody is told."""

    about = "a worker's connections fall silent (black hole); proof: chunks were held back, and flow again"

    async def inject(self) -> None:
        """Let nothing pass."""
        self._held_before = sum(proxy.held_chunks for proxy in self.proxies)
        for proxy in self.proxies:
            proxy.hush()


class CutConnection(SlowConnection):
    """Connections end, and new ones are refused for a while."""

    about = "a worker's connections are reset, new ones too for a while; proof: connections were cut and others refused"

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
