"""Faults of our own processes: frozen until others have taken over, and woken as zombies; at any moment, or in a batch."""

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

TAKE_OVER_SECONDS = 15.0  # beyond the planned freeze: the others have to notice, and to share out anew
LOOK_AGAIN_SECONDS = 2.0
IN_HAND_SECONDS = 3.0  # what a woken process had in hand is refused at once, or there was nothing
REFUSED_WITHIN_SECONDS = 30.0  # of a batch that was surely in hand, on a busy machine
A_BATCH_WITHIN_SECONDS = 10.0
LAST_MOMENT_SECONDS = 0.5


class Freeze(Fault):
    """SIGSTOP, and SIGCONT after session timeout and lease: the process wakes as a zombie.

    What it had in hand is refused, if it had something. A worker that was frozen between two batches is turned away
    before that, by its group: what it fetched is dropped, and it reads on from the ledger.
    """

    about = "SIGSTOP longer than session timeout and lease, then SIGCONT; proof: measured length, others took over"
    _partitions: tuple[int, ...] = ()
    _positions: Mapping[int, int] = {}

    async def inject(self) -> None:
        """Stop it where it stands."""
        self._pid = self.site.pid(self.target)
        self._began, self._ledger = time.monotonic(), self.site.watch.ledger
        self._taken_over: list[int] = []
        self._partitions = await self._counted_partitions() if self.target.startswith("streams") else ()
        await self._stop()
        self._began = time.monotonic()
        if self._partitions:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)  # what it committed in its last moment shows by then
        self._positions = dict(self.site.watch.positions)

    async def heal(self) -> None:
        """Let it go on; a worker not before others have its partitions, if that takes no longer than some seconds more."""
        if self._partitions and self._is_stopped():
            with contextlib.suppress(UnprovenError):
                await self.site.until(self._is_taken_over, "others to take over", seconds=TAKE_OVER_SECONDS)
        self._held = time.monotonic() - self._began
        self._counted_meanwhile = self.site.watch.ledger - self._ledger
        self._was_stopped = self._is_stopped()
        self._since_waking = LogTail(self.site.logs / f"{self.target}.log")
        self.site.supervisor.kill(self.target, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """It was frozen for long enough, and, where it counts, somebody else counted its partitions meanwhile."""
        if not self._was_stopped or self._held <= max(SESSION_SECONDS, LEASE_SECONDS):
            raise UnprovenError(f"{self.target} was frozen for {self._held:.1f} s")
        evidence: Evidence = {"pid": self._pid, "frozen_seconds": round(self._held, 2)}
        if self._partitions:
            evidence |= await self._zombie()
        if self.target.startswith("trainer"):
            await asyncio.sleep(IN_HAND_SECONDS)
            evidence["lost_leases"] = len(self._since_waking.events("training_lease_lost"))
        evidence["back_seconds"] = await self.site.until(
            lambda: self.site.state(self.target).phase is Phase.READY,
            f"{self.target} to be ready",
            seconds=READY_WITHIN_SECONDS,
        )
        return evidence

    async def _stop(self) -> None:
        self.site.supervisor.kill(self.target, signal.SIGSTOP)
        await self.site.until(self._is_stopped, "the freeze", seconds=2.0)

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
        """Return what became of batches of events, as the woken worker says."""
        return [line for line in self._since_waking.events(event) if line.get("topic") == BEHAVIORAL_EVENTS.name]

    async def _counted_partitions(self) -> tuple[int, ...]:
        """Return which partitions of the events the worker says it has.

        Raises:
            UnprovenError: it does not say, or has none.
        """
        try:
            async with httpx.AsyncClient(timeout=3.0) as client:
                answer = await client.get(f"{self.site.urls[self.target]}/health/ready")
        except httpx.HTTPError as error:
            raise UnprovenError(f"{self.target} does not say what it counts: {error!r}") from error
        named = answer.json()["facts"]["partitions"]
        found = tuple(int(name.rpartition("/")[2]) for name in named if name.startswith(f"{BEHAVIORAL_EVENTS.name}/"))
        if not found:
            raise UnprovenError(f"{self.target} has no partition")
        return found

    def _is_taken_over(self) -> bool:
        """Whether a partition of the frozen worker has moved on."""
        now = self.site.watch.positions
        self._taken_over = [place for place in self._partitions if now.get(place, 0) > self._positions.get(place, 0)]
        return bool(self._taken_over)

    def _is_stopped(self) -> bool:
        return is_stopped(self._pid)


class FreezeInBatch(Freeze):
    """A worker freezes with a batch in hand, before the batch's transaction begins, and wakes when others have counted it.

    The moment cannot be hit from outside: workers are started through ``launch.py``, with a trap that stops them at
    their next batch when it is armed. Whether the woken worker was refused is no part of the proof that the fault hit:
    the oracle demands it of every one.
    """

    about = "a worker stops itself with a batch in hand and wakes when others have counted it; proof: as of a freeze, and the ledger is beyond the batch"
    _batch: BatchInHand | None = None

    async def heal(self) -> None:
        """Disarm the trap, and wake the worker when its batch has been counted by others."""
        self.site.traps.disarm(self.target)
        if not self._is_stopped():  # no batch came; one that comes in this moment must be woken, too
            await asyncio.sleep(LAST_MOMENT_SECONDS)
        await super().heal()

    async def _stop(self) -> None:
        self.site.traps.arm(self.target)
        await self.site.until(self._is_stopped, f"{self.target} to get a batch", seconds=A_BATCH_WITHIN_SECONDS)
        self._batch = self.site.traps.sprung(self.target, self._pid)

    def _is_taken_over(self) -> bool:
        """Whether the ledger is beyond the batch that the frozen worker has in hand."""
        super()._is_taken_over()
        batch = self._batch
        return batch is not None and self.site.watch.positions.get(batch.partition, 0) > batch.from_offset

    async def _zombie(self) -> Evidence:
        batch = self._batch
        if batch is None or not self._is_taken_over():
            raise UnprovenError(f"nobody counted {batch} while {self.target} had it in hand")
        with contextlib.suppress(UnprovenError):  # the oracle says what that means
            await self.site.until(
                lambda: bool(self._end_of_the_batch()), "the batch to end", seconds=REFUSED_WITHIN_SECONDS
            )
        evidence = await super()._zombie()
        return {**evidence, "batch": [batch.partition, batch.from_offset], "refused_by": self._end_of_the_batch()}

    def _end_of_the_batch(self) -> str:
        """Return who refused the batch: the ledger, or a database that was away just then; empty when nobody did."""
        batch = self._batch
        for event, who in (("compare_lost", "ledger"), ("batch_delayed", "database")):
            if batch is not None and any(line["partition"] == batch.partition for line in self._refusals(event)):
                return who
        return ""


class FreezeProducer(Fault):
    """SIGSTOP of a producer in the middle of its sends, and SIGCONT: what was under way is acknowledged to nobody meanwhile."""

    about = "SIGSTOP of a producer in the middle of its sends, then SIGCONT; proof: its journal stood still, and grows again"

    before = KillProducer.before

    async def inject(self) -> None:
        """Stop it where it stands."""
        self._pid = self.site.fleet.pid(self.target)
        self._began = time.monotonic()
        os.kill(self._pid, signal.SIGSTOP)
        await self.site.until(lambda: is_stopped(self._pid), "the freeze", seconds=2.0)
        self._bytes = self.site.fleet.journal_bytes(self.target)

    async def heal(self) -> None:
        """Let it go on."""
        self._held = time.monotonic() - self._began
        self._grown = self.site.fleet.journal_bytes(self.target) - self._bytes
        self._was_stopped = is_stopped(self._pid)
        os.kill(self._pid, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """It wrote nothing while it was frozen, and goes on."""
        if not self._was_stopped or self._grown:
            raise UnprovenError(f"{self.target} wrote {self._grown} bytes in the {self._held:.1f} s of its freeze")
        back = await self.site.until(
            lambda: self.site.fleet.journal_bytes(self.target) > self._bytes,
            "the journal to grow",
            seconds=READY_WITHIN_SECONDS,
        )
        return {"pid": self._pid, "frozen_seconds": round(self._held, 2), "back_seconds": back}
