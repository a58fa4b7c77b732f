"""The faults, one class a kind: what must hold before, how it is injected, how it is healed, and what proves that it hit."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import numpy as np
import psutil

from backends.clock import Clock
from stack.folder import birth_of
from stack.processes import Phase
from tests.chaos.watch import LogTail

if TYPE_CHECKING:
    from stack.processes import ProcessState
    from stack.supervisor import Supervisor
    from tests.chaos.clockwork import Clockwork
    from tests.chaos.disk import SmallDisk
    from tests.chaos.fleet import ProducerFleet
    from tests.chaos.leadership import Leadership
    from tests.chaos.plan import PlannedFault
    from tests.chaos.proxy import FaultProxy
    from tests.chaos.watch import Watch

Evidence = dict[str, Any]
READY_WITHIN_SECONDS = 60.0
SESSION_SECONDS = 10.0  # of every consumer group; a frozen member is put out after it
LEASE_SECONDS = 10.0  # of a training, as the run sets it
BROKER_SESSION_SECONDS = 3.0
ZOMBIE_WORDS = ("compare_lost", "batch_delayed")
_POLL_SECONDS = 0.1


class UnprovenError(Exception):
    """The fault did not hit something that worked, or nothing shows that it did."""


@dataclass(kw_only=True)
class Site:
    """Everything that faults work on."""

    supervisor: Supervisor
    watch: Watch
    leadership: Leadership
    fleet: ProducerFleet
    clocks: Clockwork
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


class Kill(Fault):
    """SIGKILL of one of our processes."""

    about = "kill -9 of a streams worker, trainer, deployer or replica; proof: the process is gone and another is ready in its place"

    async def inject(self) -> None:
        """Kill it with its group."""
        self._pid = self.site.pid(self.target)
        self._born = birth_of(self._pid)
        self.site.supervisor.kill(self.target)

    async def proof(self) -> Evidence:
        """The process is gone, and another one works in its place."""
        await self.site.until(self._is_gone, f"process {self._pid} to be gone", seconds=5.0)
        back = await self.site.until_back(self.target, after=self._pid)
        return {"killed_pid": self._pid, "gone": True, "pid": self.site.state(self.target).pid, "back_seconds": back}

    def _is_gone(self) -> bool:
        return birth_of(self._pid) != self._born


class KillProducer(Fault):
    """SIGKILL of a producer: what it had under way may or may not be in the topic."""

    about = "kill -9 of a producer in the middle of its sends; a new one with a journal of its own takes its place"

    async def before(self) -> Evidence:
        """Its journal grows."""
        return {"pid": self.site.fleet.pid(self.target), "journal_bytes": self.site.fleet.journal_bytes(self.target)}

    async def inject(self) -> None:
        """Kill it."""
        self._pid = self.site.fleet.pid(self.target)
        self._bytes = self.site.fleet.journal_bytes(self.target)
        await self.site.fleet.kill(self.target)

    async def proof(self) -> Evidence:
        """It is gone, it had written something, and its successor writes."""
        if birth_of(self._pid) is not None or not self._bytes:
            raise UnprovenError(f"{self.target} had written {self._bytes} bytes")
        await self.site.until(
            lambda: self.site.fleet.journal_bytes(self.target) > 0, "a new journal", seconds=READY_WITHIN_SECONDS
        )
        return {"killed_pid": self._pid, "gone": True, "pid": self.site.fleet.pid(self.target)}


class KillTraining(Fault):
    """SIGKILL of the child that fits a model; its trainer lives on."""

    about = "kill -9 of the child process in which a training runs; proof: it was fitting, and is gone"

    async def before(self) -> Evidence:
        """A child uses processor time."""
        child = self._busy_child()
        if child is None:
            raise UnprovenError(f"{self.target} trains nothing")
        return {"pid": child.pid, "processor_seconds": round(sum(child.cpu_times()[:2]), 2)}

    async def inject(self) -> None:
        """Kill the child."""
        child = self._busy_child()
        if child is None:
            raise UnprovenError(f"{self.target} trains nothing any more")
        self._pid, self._born = child.pid, birth_of(child.pid)
        child.kill()

    async def proof(self) -> Evidence:
        """The child is gone, the trainer is not."""
        await self.site.until(lambda: birth_of(self._pid) != self._born, "the child to be gone", seconds=5.0)
        return {"killed_pid": self._pid, "gone": True, "trainer_pid": self.site.pid(self.target)}

    def _busy_child(self) -> psutil.Process | None:
        try:
            children = psutil.Process(self.site.pid(self.target)).children(recursive=True)
            return next((child for child in children if sum(child.cpu_times()[:2]) > 0.5), None)
        except psutil.Error:
            return None


class Freeze(Fault):
    """SIGSTOP, and SIGCONT after session timeout and lease: the process wakes as a zombie."""

    about = "SIGSTOP longer than session timeout and lease, then SIGCONT; proof: measured length, others went on, refused zombie batches counted"

    async def inject(self) -> None:
        """Stop it where it stands."""
        self._pid = self.site.pid(self.target)
        self._tail = LogTail(self.site.logs / f"{self.target}.log")
        self.site.supervisor.kill(self.target, signal.SIGSTOP)
        self._began = time.monotonic()
        await self.site.until(self._is_stopped, "the freeze", seconds=2.0)
        self._ledger = self.site.watch.ledger

    async def heal(self) -> None:
        """Let it go on."""
        self._held = time.monotonic() - self._began
        self._counted_meanwhile = self.site.watch.ledger - self._ledger
        self._was_stopped = self._is_stopped()
        self.site.supervisor.kill(self.target, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """It was frozen for long enough, and, where it counts, somebody else counted meanwhile."""
        if not self._was_stopped or self._held <= max(SESSION_SECONDS, LEASE_SECONDS):
            raise UnprovenError(f"{self.target} was frozen for {self._held:.1f} s")
        evidence: Evidence = {"pid": self._pid, "frozen_seconds": round(self._held, 2)}
        if self.target.startswith("streams"):
            evidence |= await self._zombie()
        evidence["back_seconds"] = await self.site.until(
            lambda: self.site.state(self.target).phase is Phase.READY,
            f"{self.target} to be ready",
            seconds=READY_WITHIN_SECONDS,
        )
        return evidence

    async def _zombie(self) -> Evidence:
        if self._counted_meanwhile <= 0:
            raise UnprovenError("nobody counted while the worker was frozen")
        await asyncio.sleep(3.0)  # what it had in hand is refused at once, or there was nothing
        refused = self._tail.count(*ZOMBIE_WORDS)
        lost = self._tail.count("compare_lost")
        return {"counted_meanwhile": self._counted_meanwhile, "refused_batches": refused, "lost_compares": lost}

    def _is_stopped(self) -> bool:
        try:
            return bool(psutil.Process(self._pid).status() == psutil.STATUS_STOPPED)
        except psutil.Error:
            return False


class BrokerKill(Kill):
    """SIGKILL of a broker; its partitions get other leaders."""

    about = "kill -9 of a broker and its restart; proof: every partition that it led was led by another meanwhile"

    async def before(self) -> Evidence:
        """It leads partitions, and all copies are in step."""
        self._led = await self.site.leadership.led_by(node_of(self.target))
        if not self._led:
            raise UnprovenError(f"{self.target} leads nothing")
        if not await self.site.leadership.is_whole():
            raise UnprovenError("not all copies are in step")
        return {**self.at_work(), "leads": self._led}

    async def inject(self) -> None:
        """Kill it and see its leaders move."""
        await super().inject()
        self._moved = await self.site.leadership.until_led_by_others(node_of(self.target), seconds=20.0)

    async def proof(self) -> Evidence:
        """Gone, its leaders moved, back, and all copies in step."""
        if self._moved is None:
            raise UnprovenError("its partitions were not led by others")
        evidence = await super().proof()
        if not await self.site.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not come into step again")
        return {**evidence, "led": self._led, "leaders_moved_seconds": round(self._moved, 2)}


class BrokerFreeze(Fault):
    """SIGSTOP of a broker beyond its session: a leader that does not know that it is none any more."""

    about = "SIGSTOP of a broker longer than its session; proof: its partitions were led by others meanwhile"

    before = BrokerKill.before

    async def inject(self) -> None:
        """Stop it and see its leaders move."""
        self._pid = self.site.pid(self.target)
        self._began = time.monotonic()
        self.site.supervisor.kill(self.target, signal.SIGSTOP)
        self._moved = await self.site.leadership.until_led_by_others(node_of(self.target), seconds=20.0)

    async def heal(self) -> None:
        """Let it go on."""
        self._held = time.monotonic() - self._began
        self.site.supervisor.kill(self.target, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """Frozen beyond its session, and its leaders moved."""
        if self._moved is None or self._held <= BROKER_SESSION_SECONDS:
            raise UnprovenError(f"frozen for {self._held:.1f} s, leaders moved: {self._moved}")
        if not await self.site.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not come into step again")
        return {
            "pid": self._pid,
            "frozen_seconds": round(self._held, 2),
            "leaders_moved_seconds": round(self._moved, 2),
        }


class PostmasterKill(Fault):
    """SIGKILL of the postmaster: every connection ends, the server recovers from its log."""

    about = "kill -9 of the Postgres server; proof: another start time, and the ledger goes on"

    async def before(self) -> Evidence:
        """Batches are committed."""
        if not self.site.watch.ledger_is_moving():
            raise UnprovenError("nothing is committed")
        return {"pid": self.site.pid(self.target), "ledger": self.site.watch.ledger}

    async def inject(self) -> None:
        """Kill the postmaster alone; its orphans notice."""
        self._pid = self.site.pid(self.target)
        os.kill(self._pid, signal.SIGKILL)

    async def proof(self) -> Evidence:
        """Another server runs, and what was counted goes on."""
        back = await self.site.until_back(self.target, after=self._pid)
        before = self.site.watch.ledger
        went_on = await self.site.until(
            lambda: self.site.watch.ledger > before, "the ledger to go on", seconds=READY_WITHIN_SECONDS
        )
        return {
            "killed_pid": self._pid,
            "pid": self.site.pid(self.target),
            "back_seconds": back,
            "ledger_went_on_seconds": went_on,
        }


class BackendKill(Fault):
    """pg_terminate_backend of one connection of ours, one at work where there is one."""

    about = "pg_terminate_backend of a random connection of one of our processes; proof: the backend is gone"

    CANDIDATES: ClassVar[str] = (
        "SELECT pid, application_name, state, left(query, 80) AS query FROM pg_stat_activity"
        " WHERE application_name LIKE 'fincoach-%' AND pid <> pg_backend_pid()"
    )

    async def before(self) -> Evidence:
        """There are connections, and some of them work."""
        try:
            found = await self.site.watch.rows(self.CANDIDATES)
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise UnprovenError(f"the database is away: {error!r}") from error
        if not found or not self.site.watch.ledger_is_moving():
            raise UnprovenError("nobody is connected, or nothing is committed")
        return {"connections": len(found)}

    async def inject(self) -> None:
        """End one."""
        rows: list[dict[str, Any]] = []
        for _ in range(20):
            rows = await self.site.watch.rows(self.CANDIDATES)
            if busy := [row for row in rows if row["state"] != "idle"]:
                rows = busy
                break
        if not rows:
            raise UnprovenError("nobody is connected any more")
        self._victim = rows[int(self.site.generator.integers(len(rows)))]
        self._ended = await self.site.watch.ask("SELECT pg_terminate_backend($1)", self._victim["pid"])

    async def proof(self) -> Evidence:
        """The backend is gone."""
        if not self._ended or birth_of(self._victim["pid"]) is not None:
            await self.site.until(lambda: birth_of(self._victim["pid"]) is None, "the backend to be gone", seconds=5.0)
        return dict(self._victim)


class Rebalance(Fault):
    """A further worker joins the group and leaves it in order."""

    about = "a third streams worker joins, counts, and leaves in order; proof: it had partitions and counted"

    async def before(self) -> Evidence:
        """It rests, and the others count."""
        if self.site.state(self.target).pid is not None or not self.site.watch.ledger_is_moving():
            raise UnprovenError(f"{self.target} runs already, or nothing is committed")
        return {"ledger": self.site.watch.ledger}

    async def inject(self) -> None:
        """Let it join; returns when it is ready."""
        self._began = time.monotonic()
        async with asyncio.timeout(READY_WITHIN_SECONDS):
            await self.site.supervisor.start(self.target)
        self._ready_after = time.monotonic() - self._began
        self._pid = self.site.pid(self.target)

    async def heal(self) -> None:
        """Let it leave."""
        self._counted = self.site.watch.moved.get(self.target, 0.0) > self._began
        await self.site.supervisor.stop(self.target)

    async def proof(self) -> Evidence:
        """It counted, and is gone."""
        if not self._counted:
            raise UnprovenError(f"{self.target} counted nothing")
        return {
            "pid": self._pid,
            "joined_seconds": round(self._ready_after, 2),
            "counted": True,
            "left": birth_of(self._pid) is None,
        }


class ClockJump(Fault):
    """The wall clock of one process moves by hours while it runs."""

    about = "the wall clock of one process jumps by hours and back (libfaketime); proof: a line of its log has the moved time"

    async def inject(self) -> None:
        """Move its clock."""
        self._pid = self.site.pid(self.target)
        self._tail = LogTail(self.site.logs / f"{self.target}.log")
        self._before = time.monotonic()
        self.site.clocks.move(self.target, self.planned.size)

    async def heal(self) -> None:
        """Move it back."""
        self._held = time.monotonic() - self._before
        self.site.clocks.move(self.target, 0)

    async def proof(self) -> Evidence:
        """The same process wrote a line under the moved clock."""
        await asyncio.sleep(0.5)
        shifts = self._tail.shifts(self.site.clock)
        hits = [shift for shift in shifts if abs(shift - self.planned.size) < 120]
        if not hits:
            raise UnprovenError(f"no line of {self.target} has the moved time; shifts {shifts[:3]}")
        return {
            "pid": self._pid,
            "moved_seconds": self.planned.size,
            "lines_under_it": len(hits),
            "held_seconds": round(self._held, 2),
        }


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


class DiskFull(Fault):
    """The disk of one broker fills up and is emptied again."""

    about = (
        "the small tmpfs under a broker's log fills up, and is freed; proof: no byte was free, and the broker noticed"
    )

    before = BrokerKill.before

    async def inject(self) -> None:
        """Fill it."""
        self._pid = self.site.pid(self.target)
        self._tail = LogTail(self.site.logs / f"{self.target}.log")
        self._disk = self.site.disks[self.target]
        self._free = await asyncio.to_thread(self._disk.fill)

    async def heal(self) -> None:
        """Free it, and have the broker start anew where it has not ended by itself."""
        await asyncio.to_thread(self._disk.free)

    async def proof(self) -> Evidence:
        """It said that no space was left, and is back with all copies."""
        if not self._tail.count("No space left"):
            raise UnprovenError("the broker did not notice")
        await self.site.until(
            lambda: self.site.state(self.target).phase is Phase.READY,
            f"{self.target} to be ready",
            seconds=READY_WITHIN_SECONDS,
        )
        if not await self.site.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not come into step again")
        ended = self.site.state(self.target).pid != self._pid
        return {"free_bytes": self._free, "no_space_lines": self._tail.count("No space left"), "broker_ended": ended}


FAULTS: dict[str, type[Fault]] = {
    "kill": Kill,
    "kill_producer": KillProducer,
    "kill_training": KillTraining,
    "freeze": Freeze,
    "broker_kill": BrokerKill,
    "broker_freeze": BrokerFreeze,
    "backend_kill": BackendKill,
    "postmaster_kill": PostmasterKill,
    "rebalance": Rebalance,
    "clock_jump": ClockJump,
    "slow_connection": SlowConnection,
    "silent_connection": SilentConnection,
    "cut_connection": CutConnection,
    "disk_full": DiskFull,
}


def node_of(broker: str) -> int:
    """Return the node id of ``broker-N``."""
    return int(broker.rsplit("-", 1)[-1])
