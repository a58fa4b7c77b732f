"""The parts of every fault: the check before it, the injection, the healing and the proof that it took effect."""

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
    from tests.chaos.faults.disk import SmallDisk
    from tests.chaos.faults.fake_clocks import FakeClocks
    from tests.chaos.faults.plan import PlannedFault
    from tests.chaos.faults.proxy import FaultProxy
    from tests.chaos.faults.traps import BatchTraps
    from tests.chaos.rig.fleet import ProducerFleet
    from tests.chaos.rig.leadership import Leadership
    from tests.chaos.rig.watch import Watch

Evidence = dict[str, Any]
READY_WITHIN_SECONDS = 60.0
SESSION_SECONDS = 10.0  # of every consumer group: the group removes a frozen member after this time
LEASE_SECONDS = 10.0  # of a training; the run sets it
BROKER_SESSION_SECONDS = 3.0
_POLL_SECONDS = 0.1


class UnprovenError(Exception):
    """The fault did not hit a working target, or nothing proves that it did."""


@dataclass(kw_only=True)
class FaultContext:
    """Everything that faults act on."""

    urls: Mapping[str, str]
    supervisor: Supervisor
    watch: Watch
    leadership: Leadership
    fleet: ProducerFleet
    clocks: FakeClocks
    traps: BatchTraps
    proxies: dict[tuple[str, str], FaultProxy]
    disks: dict[str, SmallDisk]
    logs: Path
    clock: Clock
    generator: np.random.Generator

    def state(self, name: str) -> ProcessState:
        """Return the state of a supervised process."""
        return self.supervisor.state(name)

    def pid(self, name: str) -> int:
        """Return the id of a running process.

        Raises:
            UnprovenError: the process does not run.
        """
        pid = self.state(name).pid
        if pid is None:
            raise UnprovenError(f"{name} does not run")
        return pid

    async def until(self, holds: Callable[[], bool | Awaitable[bool]], what: str, *, seconds: float) -> float:
        """Wait until ``holds`` is true; return how many seconds that took.

        Raises:
            UnprovenError: it was not true in time.
        """
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return round(time.monotonic() - began, 2)
            await asyncio.sleep(_POLL_SECONDS)
        raise UnprovenError(f"waited {seconds:g} s for {what}")

    async def until_back(self, name: str, *, after: int) -> float:
        """Wait until a process other than ``after`` is ready under this name; return how many seconds that took."""
        return await self.until(
            lambda: self.state(name).phase is Phase.READY and self.state(name).pid != after,
            f"{name} to come back",
            seconds=READY_WITHIN_SECONDS,
        )


class Fault:
    """One fault. ``before`` may run several times; ``heal`` follows every ``inject``, ``proof`` follows every ``heal``."""

    about: ClassVar[str] = ""
    _pid = 0  # no process until the fault has a victim

    def __init__(self, planned: PlannedFault, context: FaultContext) -> None:
        self.planned = planned
        self.context = context
        self.target = planned.target

    async def before(self) -> Evidence:
        """Return evidence that the target is working.

        Raises:
            UnprovenError: it is not.
        """
        return self.at_work()

    async def inject(self) -> None:
        """Inject the fault."""
        raise NotImplementedError

    async def heal(self) -> None:
        """Undo the fault. Called once, also when the injection failed."""

    async def proof(self) -> Evidence:
        """Return evidence that the fault took effect and is over.

        Raises:
            UnprovenError: there is none.
        """
        raise NotImplementedError

    def at_work(self) -> Evidence:
        """Return evidence that the target worked within the last seconds.

        Raises:
            UnprovenError: it did not.
        """
        state = self.context.state(self.target)
        if state.phase is not Phase.READY:
            raise UnprovenError(f"{self.target} is {state.phase}")
        if not self.context.watch.is_at_work(self.target):
            raise UnprovenError(f"{self.target} was not at work")
        ago = round(self.context.watch.worked_seconds_ago(self.target), 2)
        return {"pid": state.pid, "at_work_seconds_ago": ago}


def node_of(broker: str) -> int:
    """Return the node id of ``broker-N``."""
    return int(broker.rsplit("-", 1)[-1])
