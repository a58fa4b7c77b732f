"""What every fault has: what must hold before, how it is injected, how it is healed, and what proves that it hit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from backends.clock import Clock
from stack.processes import Phase

if TYPE_CHECKING:
    from stack.processes import ProcessState
    from stack.supervisor import Supervisor
    from tests.chaos.faults.clockwork import Clockwork
    from tests.chaos.faults.disk import SmallDisk
    from tests.chaos.faults.plan import PlannedFault
    from tests.chaos.faults.proxy import FaultProxy
    from tests.chaos.faults.traps import BatchTraps
    from tests.chaos.rig.fleet import ProducerFleet
    from tests.chaos.rig.leadership import Leadership
    from tests.chaos.rig.watch import Watch

Evidence = dict[str, Any]
READY_WITHIN_SECONDS = 60.0
SESSION_SECONDS = 10.0  # of every consumer group; a frozen member is put out after it
LEASE_SECONDS = 10.0  # of a training, as the run sets it
BROKER_SESSION_SECONDS = 3.0
_POLL_SECONDS = 0.1


class UnprovenError(Exception):
    """The fault did not hit something that worked, or nothing shows that it did."""


@dataclass(kw_only=True)
class Site:
    """Everything that faults work on."""

    urls: Mapping[str, str]
    supervisor: Supervisor
    watch: Watch
    leadership: Leadership
    fleet: ProducerFleet
    clocks: Clockwork
    traps: BatchTraps
    proxies: dict[tuple[str, str], FaultProxy]
    disks: dict[str, SmallDisk]
    logs: Path
    clock: Clock
    generator: np.random.Generator

    def state(self, name: str) -> ProcessState:
        """Return a supervised process."""
        return self.supervisor.state(name)

    def pid(self, name: str) -> int:
        """Return the id of a process that runs.

        Raises:
            UnprovenError: it does not.
        """
        pid = self.state(name).pid
        if pid is None:
            raise UnprovenError(f"{name} does not run")
        return pid

    async def until(self, holds: Callable[[], bool | Awaitable[bool]], what: str, *, seconds: float) -> float:
        """Wait for something and return how long it took.

        Raises:
            UnprovenError: it did not come to pass.
        """
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return round(time.monotonic() - began, 2)
            await asyncio.sleep(_POLL_SECONDS)
        raise UnprovenError(f"waited {seconds:g} s for {what}")

    async def until_back(self, name: str, *, after: int) -> float:
        """Wait until another process is ready in the place of ``after``."""
        return await self.until(
            lambda: self.state(name).phase is Phase.READY and self.state(name).pid != after,
            f"{name} to come back",
            seconds=READY_WITHIN_SECONDS,
        )


class Fault:
    """One fault. ``before`` may be asked several times; ``heal`` follows every ``inject``, ``proof`` every ``heal``."""

    about: ClassVar[str] = ""
    _pid = 0  # nobody's, until the fault has a victim

    def __init__(self, planned: PlannedFault, site: Site) -> None:
        self.planned = planned
        self.site = site
        self.target = planned.target

    async def before(self) -> Evidence:
        """Return what shows that the target is at work.

        Raises:
            UnprovenError: it is not.
        """
        return self.at_work()

    async def inject(self) -> None:
        """Do it."""
        raise NotImplementedError

    async def heal(self) -> None:
        """Undo it; called once, also when injecting failed."""

    async def proof(self) -> Evidence:
        """Return what shows that it hit and is over.

        Raises:
            UnprovenError: nothing does.
        """
        raise NotImplementedError

    def at_work(self) -> Evidence:
        """Return that the target was seen at work within the last seconds.

        Raises:
            UnprovenError: it was not.
        """
        state = self.site.state(self.target)
        if state.phase is not Phase.READY:
            raise UnprovenError(f"{self.target} is {state.phase}")
        if not self.site.watch.is_at_work(self.target):
            raise UnprovenError(f"{self.target} was not at work")
        ago = round(self.site.watch.worked_seconds_ago(self.target), 2)
        return {"pid": state.pid, "at_work_seconds_ago": ago}


def node_of(broker: str) -> int:
    """Return the node id of ``broker-N``."""
    return int(broker.rsplit("-", 1)[-1])
