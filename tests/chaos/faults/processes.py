"""Faults of our own processes: killed, joined and left, told the wrong time. Frozen ones stand in ``faults_freezes.py``."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time

import httpx
import psutil

from stack.folder import birth_of
from tests.chaos.faults.fault import READY_WITHIN_SECONDS, Evidence, Fault, UnprovenError
from tests.chaos.rig.watch import LogTail, processor_seconds

CLOCK_TOLERANCE_SECONDS = 120.0
BUSY_SECONDS = 0.5  # of processor time: a training that has begun
A_SEND_SECONDS = 0.5  # in which a producer that is at work sends something


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
        first = self.site.fleet.journal_bytes(self.target)
        await asyncio.sleep(A_SEND_SECONDS)
        grown = self.site.fleet.journal_bytes(self.target)
        if grown <= first:
            raise UnprovenError(f"{self.target} writes nothing")
        return {"pid": self.site.fleet.pid(self.target), "journal_bytes": grown}

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
    """SIGKILL of a child that fits a model, whichever trainer has one; its trainer lives on."""

    about = "kill -9 of the child process in which a training runs; proof: it was fitting, and is gone"

    async def before(self) -> Evidence:
        """A child uses processor time."""
        child = self._busy_child()
        if child is None:
            raise UnprovenError("nothing is trained")
        return {"pid": child.pid, "processor_seconds": round(sum(child.cpu_times()[:2]), 2)}

    async def inject(self) -> None:
        """Kill the child."""
        child = self._busy_child()
        if child is None:
            raise UnprovenError("nothing is trained any more")
        self._pid, self._born = child.pid, birth_of(child.pid)
        child.kill()

    async def proof(self) -> Evidence:
        """The child is gone."""
        await self.site.until(lambda: birth_of(self._pid) != self._born, "the child to be gone", seconds=5.0)
        return {"killed_pid": self._pid, "gone": True}

    def _busy_child(self) -> psutil.Process | None:
        pids = [state.pid for state in self.site.supervisor.states() if state.name.startswith("trainer") and state.pid]
        children: list[psutil.Process] = []
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                children += psutil.Process(pid).children(recursive=True)
        return next((child for child in children if (processor_seconds(child.pid) or 0.0) > BUSY_SECONDS), None)


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

    about = "the wall clock of one process jumps by hours and back (libfaketime); proof: its own answers carry the moved date"

    async def inject(self) -> None:
        """Move its clock; returns when it shows."""
        self._tail = LogTail(self.site.logs / f"{self.target}.log")
        self._began = time.monotonic()
        self._pid = self.site.pid(self.target)
        self.site.clocks.move(self.target, self.planned.size)
        await self.site.until(self._is_moved, "the clock to jump", seconds=5.0)

    async def heal(self) -> None:
        """Move it back."""
        self._held = time.monotonic() - self._began
        self._was_moved = await self._is_moved()
        shifts = self._tail.shifts(self.site.clock)
        self._lines = sum(abs(shift - self.planned.size) < CLOCK_TOLERANCE_SECONDS for shift in shifts)
        self.site.clocks.move(self.target, 0)

    async def proof(self) -> Evidence:
        """The same process answered with the moved date from first to last, and with the true one now."""
        if not self._was_moved or self.site.state(self.target).pid != self._pid:
            raise UnprovenError(f"{self.target} did not run under the moved clock to the end")
        back = await self.site.until(self._is_true, "the clock to be right again", seconds=5.0)
        return {
            "pid": self._pid, "moved_seconds": self.planned.size, "held_seconds": round(self._held, 2), "lines_under_it": self._lines,
            "back_seconds": back,
        }  # fmt: skip

    async def _is_moved(self) -> bool:
        shift = await self._shift()
        return shift is not None and abs(shift - self.planned.size) < CLOCK_TOLERANCE_SECONDS

    async def _is_true(self) -> bool:
        shift = await self._shift()
        return shift is not None and abs(shift) < CLOCK_TOLERANCE_SECONDS

    async def _shift(self) -> float | None:
        """Return by how much the date of the process's answers differs from the true one."""
        try:
            async with httpx.AsyncClient(timeout=2.0) as client:
                answer = await client.get(f"{self.site.urls[self.target]}/health/live")
        except httpx.HTTPError:
            return None
        if "date" not in answer.headers:
            return None
        said = email.utils.parsedate_to_datetime(answer.headers["date"])
        return said.timestamp() - self.site.clock.now().timestamp()
