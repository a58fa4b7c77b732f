"""Faults that freeze our own processes until others take over, then wake them as zombies: at any moment or in a batch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import httpx

from schemas.topics import BEHAVIORAL_EVENTS
from stack.processes import Phase
from tests.chaos.faults.fault import (
    LEASE_SECONDS,
    READY_WITHIN_SECONDS,
    SESSION_SECONDS,
    Evidence,
    Fault,
    UnprovenError,
)
from tests.chaos.faults.processes import KillProducer
from tests.chaos.faults.traps import BatchInHand
from tests.chaos.rig.watch import LogTail, is_stopped

TAKE_OVER_SECONDS = 15.0  # beyond the planned freeze: the others must notice and rebalance
LOOK_AGAIN_SECONDS = 2.0
IN_HAND_SECONDS = 3.0  # the batch of a woken process is refused within this time, or there was none
REFUSED_WITHIN_SECONDS = 30.0  # for a batch that was certainly in hand, on a busy machine
A_BATCH_WITHIN_SECONDS = 10.0
LAST_MOMENT_SECONDS = 0.5


class Freeze(Fault):
    """SIGSTOP, then SIGCONT after session timeout and lease: the process wakes as a zombie.

    The ledger refuses the batch that it had in hand. A worker that was frozen between two batches has none: its group
    has removed it, so it drops what it fetched and reads on from the ledger.
    """

    about = "SIGSTOP longer than session timeout and lease, then SIGCONT; proof: measured duration, others took over"
    _partitions: tuple[int, ...] = ()
    _positions: Mapping[int, int] = {}

    async def inject(self) -> None:
        """Freeze it wherever it is."""
        self._pid = self.context.pid(self.target)
        self._began, self._ledger = time.monotonic(), self.context.watch.ledger
        self._taken_over: list[int] = []
        self._partitions = await self._counted_partitions() if self.target.startswith("streams") else ()
        await self._stop()
        self._began = time.monotonic()
        if self._partitions:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)  # its last commit shows by then
        self._positions = dict(self.context.watch.positions)

    async def heal(self) -> None:
        """Wake it. A worker stays frozen some seconds longer if no other one has taken over its partitions yet."""
        if self._partitions and self._is_stopped():
            with contextlib.suppress(UnprovenError):
                await self.context.until(self._is_taken_over, "others to take over", seconds=TAKE_OVER_SECONDS)
        self._held = time.monotonic() - self._began
        self._counted_meanwhile = self.context.watch.ledger - self._ledger
        self._was_stopped = self._is_stopped()
        self._since_waking = LogTail(self.context.logs / f"{self.target}.log")
        self.context.supervisor.kill(self.target, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """It was frozen long enough; if it is a worker, another one counted its partitions meanwhile."""
        if not self._was_stopped or self._held <= max(SESSION_SECONDS, LEASE_SECONDS):
            raise UnprovenError(f"{self.target} was frozen for {self._held:.1f} s")
        evidence: Evidence = {"pid": self._pid, "frozen_seconds": round(self._held, 2)}
        if self._partitions:
            evidence |= await self._zombie()
        if self.target.startswith("trainer"):
            await asyncio.sleep(IN_HAND_SECONDS)
            evidence["lost_leases"] = len(self._since_waking.events("training_lease_lost"))
        evidence["back_seconds"] = await self.context.until(
            lambda: self.context.state(self.target).phase is Phase.READY,
            f"{self.target} to be ready",
            seconds=READY_WITHIN_SECONDS,
        )
        return evidence

    async def _stop(self) -> None:
        self.context.supervisor.kill(self.target, signal.SIGSTOP)
        await self.context.until(self._is_stopped, "the freeze", seconds=2.0)

    async def _zombie(self) -> Evidence:
        if not self._taken_over:
            raise UnprovenError(
                f"nobody took over the partitions {list(self._partitions)} while {self.target} was frozen"
            )
        await asyncio.sleep(IN_HAND_SECONDS)
        lost = [line for line in self._refusals("compare_lost") if line["partition"] in self._taken_over]
        return {
            "taken_over_partitions": self._taken_over, "counted_meanwhile": self._counted_meanwhile, "lost_compares": len(lost),
        }  # fmt: skip

    def _refusals(self, event: str) -> list[dict[str, Any]]:
        """Return the woken worker's log entries ``event`` about batches of events."""
        return [line for line in self._since_waking.events(event) if line.get("topic") == BEHAVIORAL_EVENTS.name]

    async def _counted_partitions(self) -> tuple[int, ...]:
        """Return the partitions of the event topic that the worker reports as its own.

        Raises:
            UnprovenError: it does not answer, or has none.
        """
        try:
            async with httpx.AsyncClient(timeout=3.0) as client:
                answer = await client.get(f"{self.context.urls[self.target]}/health/ready")
        except httpx.HTTPError as error:
            raise UnprovenError(f"{self.target} does not report its partitions: {error!r}") from error
        named = answer.json()["facts"]["partitions"]
        found = tuple(int(name.rpartition("/")[2]) for name in named if name.startswith(f"{BEHAVIORAL_EVENTS.name}/"))
        if not found:
            raise UnprovenError(f"{self.target} has no partition")
        return found

    def _is_taken_over(self) -> bool:
        """Return whether a partition of the frozen worker has advanced."""
        now = self.context.watch.positions
        self._taken_over = [place for place in self._partitions if now.get(place, 0) > self._positions.get(place, 0)]
        return bool(self._taken_over)

    def _is_stopped(self) -> bool:
        return is_stopped(self._pid)


class FreezeInBatch(Freeze):
    """A worker freezes with a batch in hand, before the batch's transaction begins, and wakes when others have counted it.

    This moment cannot be hit from outside. Workers start through ``launch.py`` with a trap that, once armed, stops them
    at their next batch. The proof does not require that the woken worker was refused: the oracle requires it of each one.
    """

    about = "a worker stops itself with a batch in hand and wakes when others have counted it; proof: as for a freeze, and the ledger is past the batch"
    _batch: BatchInHand | None = None

    async def heal(self) -> None:
        """Disarm the trap, and wake the worker once others have counted its batch."""
        self.context.traps.disarm(self.target)
        if not self._is_stopped():  # no batch came; a worker that stops at this very moment must be woken too
            await asyncio.sleep(LAST_MOMENT_SECONDS)
        await super().heal()

    async def _stop(self) -> None:
        self.context.traps.arm(self.target)
        await self.context.until(self._is_stopped, f"{self.target} to get a batch", seconds=A_BATCH_WITHIN_SECONDS)
        self._batch = self.context.traps.stopped_batch(self.target, self._pid)

    def _is_taken_over(self) -> bool:
        """Return whether the ledger is past the batch that the frozen worker has in hand."""
        super()._is_taken_over()
        batch = self._batch
        return batch is not None and self.context.watch.positions.get(batch.partition, 0) > batch.from_offset

    async def _zombie(self) -> Evidence:
        batch = self._batch
        if batch is None or not self._is_taken_over():
            raise UnprovenError(f"nobody counted {batch} while {self.target} had it in hand")
        with contextlib.suppress(UnprovenError):  # the oracle judges what that means
            await self.context.until(
                lambda: bool(self._end_of_the_batch()), "the batch to end", seconds=REFUSED_WITHIN_SECONDS
            )
        evidence = await super()._zombie()
        return {**evidence, "batch": [batch.partition, batch.from_offset], "refused_by": self._end_of_the_batch()}

    def _end_of_the_batch(self) -> str:
        """Return who refused the batch: the ledger, or a database that was away; an empty string if nobody did."""
        batch = self._batch
        for event, who in (("compare_lost", "ledger"), ("batch_delayed", "database")):
            if batch is not None and any(line["partition"] == batch.partition for line in self._refusals(event)):
                return who
        return ""


class FreezeProducer(Fault):
    """SIGSTOP of a producer while it sends, then SIGCONT: nothing in flight is acknowledged meanwhile."""

    about = "SIGSTOP of a producer while it sends, then SIGCONT; proof: its journal stopped growing, and grows again"

    before = KillProducer.before

    async def inject(self) -> None:
        """Freeze it wherever it is."""
        self._pid = self.context.fleet.pid(self.target)
        self._began = time.monotonic()
        os.kill(self._pid, signal.SIGSTOP)
        await self.context.until(lambda: is_stopped(self._pid), "the freeze", seconds=2.0)
        self._bytes = self.context.fleet.journal_bytes(self.target)

    async def heal(self) -> None:
        """Wake it."""
        self._held = time.monotonic() - self._began
        self._grown = self.context.fleet.journal_bytes(self.target) - self._bytes
        self._was_stopped = is_stopped(self._pid)
        os.kill(self._pid, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """It wrote nothing while it was frozen, and writes again."""
        if not self._was_stopped or self._grown:
            raise UnprovenError(f"{self.target} wrote {self._grown} bytes in the {self._held:.1f} s of its freeze")
        back = await self.context.until(
            lambda: self.context.fleet.journal_bytes(self.target) > self._bytes,
            "the journal to grow",
            seconds=READY_WITHIN_SECONDS,
        )
        return {"pid": self._pid, "frozen_seconds": round(self._held, 2), "back_seconds": back}
