"""Faults of our own processes: killed, joining and leaving, wrong clocks. Freezes are in ``freezes.py``."""

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
BUSY_SECONDS = 0.5  # of processor time: the training has begun
A_SEND_SECONDS = 0.5  # a working producer sends something within this time


class Kill(Fault):
    """SIGKILL of one of our processes."""

    about = "kill -9 of a streams worker, trainer, deployer or replica; proof: the process is gone and its replacement is ready"

    async def inject(self) -> None:
        """Kill it and its process group."""
        self._pid = self.context.pid(self.target)
        self._born = birth_of(self._pid)
        self.context.supervisor.kill(self.target)

    async def proof(self) -> Evidence:
        """The process is gone, and its replacement works."""
        await self.context.until(self._is_gone, f"process {self._pid} to be gone", seconds=5.0)
        back = await self.context.until_back(self.target, after=self._pid)
        return {"killed_pid": self._pid, "gone": True, "pid": self.context.state(self.target).pid, "back_seconds": back}

    def _is_gone(self) -> bool:
        return birth_of(self._pid) != self._born


class KillProducer(Fault):
    """SIGKILL of a producer: the events in flight may or may not be in the topic."""

    about = "kill -9 of a producer while it sends; a new one with its own journal replaces it"

    async def before(self) -> Evidence:
        """Its journal grows."""
        first = self.context.fleet.journal_bytes(self.target)
        await asyncio.sleep(A_SEND_SECONDS)
        grown = self.context.fleet.journal_bytes(self.target)
        if grown <= first:
            raise UnprovenError(f"{self.target} writes nothing")
        return {"pid": self.context.fleet.pid(self.target), "journal_bytes": grown}

    async def inject(self) -> None:
        """Kill it."""
        self._pid = self.context.fleet.pid(self.target)
        self._bytes = self.context.fleet.journal_bytes(self.target)
        await self.context.fleet.kill(self.target)

    async def proof(self) -> Evidence:
        """It is gone, it had written something, and its replacement writes."""
        if birth_of(self._pid) is not None or not self._bytes:
            raise UnprovenError(f"{self.target} had written {self._bytes} bytes")
        await self.context.until(
            lambda: self.context.fleet.journal_bytes(self.target) > 0, "a new journal", seconds=READY_WITHIN_SECONDS
        )
        return {"killed_pid": self._pid, "gone": True, "pid": self.context.fleet.pid(self.target)}


class KillTraining(Fault):
    """SIGKILL of the child process that fits a model, of whichever trainer has one; the trainer keeps running."""

    about = "kill -9 of the child process of a training; proof: it was fitting, and is gone"

    async def before(self) -> Evidence:
        """A child uses processor time."""
        child = self._busy_child()
        if child is None:
            raise UnprovenError("nothing is being trained")
        return {"pid": child.pid, "processor_seconds": round(sum(child.cpu_times()[:2]), 2)}

    async def inject(self) -> None:
        """Kill the child."""
        child = self._busy_child()
        if child is None:
            raise UnprovenError("nothing is being trained any more")
        self._pid, self._born = child.pid, birth_of(child.pid)
        child.kill()

    async def proof(self) -> Evidence:
        """The child is gone."""
        await self.context.until(lambda: birth_of(self._pid) != self._born, "the child to be gone", seconds=5.0)
        return {"killed_pid": self._pid, "gone": True}

    def _busy_child(self) -> psutil.Process | None:
        pids = [
            state.pid for state in self.context.supervisor.states() if state.name.startswith("trainer") and state.pid
        ]
        children: list[psutil.Process] = []
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                children += psutil.Process(pid).children(recursive=True)
        return next((child for child in children if (processor_seconds(child.pid) or 0.0) > BUSY_SECONDS), None)


class Rebalance(Fault):
    """An additional worker joins the group, then leaves it cleanly."""

    about = "a third streams worker joins, counts, and leaves cleanly; proof: it had partitions and counted"

    async def before(self) -> Evidence:
        """It is stopped, and the others count."""
        if self.context.state(self.target).pid is not None or not self.context.watch.ledger_is_moving():
            raise UnprovenError(f"{self.target} runs already, or nothing is committed")
        return {"ledger": self.context.watch.ledger}

    async def inject(self) -> None:
        """Start it; return when it is ready."""
        self._began = time.monotonic()
        async with asyncio.timeout(READY_WITHIN_SECONDS):
            await self.context.supervisor.start(self.target)
        self._ready_after = time.monotonic() - self._began
        self._pid = self.context.pid(self.target)

    async def heal(self) -> None:
        """Stop it."""
        self._counted = self.context.watch.moved.get(self.target, 0.0) > self._began
        await self.context.supervisor.stop(self.target)

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
        """Move its clock; return when the move shows."""
        self._tail = LogTail(self.context.logs / f"{self.target}.log")
        self._began = time.monotonic()
        self._pid = self.context.pid(self.target)
        self.context.clocks.move(self.target, self.planned.size)
        await self.context.until(self._is_moved, "the clock to jump", seconds=5.0)

    async def heal(self) -> None:
        """Move it back."""
        self._held = time.monotonic() - self._began
        self._was_moved = await self._is_moved()
        shifts = self._tail.shifts(self.context.clock)
        self._lines = sum(abs(shift - self.planned.size) < CLOCK_TOLERANCE_SECONDS for shift in shifts)
        self.context.clocks.move(self.target, 0)

    async def proof(self) -> Evidence:
        """The same process answered with the moved date from start to end, and answers with the true date now."""
        if not self._was_moved or self.context.state(self.target).pid != self._pid:
            raise UnprovenError(f"{self.target} did not run under the moved clock to the end")
        back = await self.context.until(self._is_true, "the clock to be right again", seconds=5.0)
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
        """Return by how many seconds the date of the process's answers differs from the true date."""
        try:
            async with httpx.AsyncClient(timeout=2.0) as client:
                answer = await client.get(f"{self.context.urls[self.target]}/health/live")
        except httpx.HTTPError:
            return None
        if "date" not in answer.headers:
            return None
        answered_at = email.utils.parsedate_to_datetime(answer.headers["date"])
        return answered_at.timestamp() - self.context.clock.now().timestamp()
