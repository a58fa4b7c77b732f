"""Faults of brokers and database: brokers killed, frozen or out of disk; Postgres killed whole or one connection at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import Any, ClassVar

import psutil

from backends.database.engine import DATABASE_AWAY_ERRORS
from stack.folder import birth_of
from stack.processes import Phase
from tests.chaos.faults.fault import (
    BROKER_SESSION_SECONDS,
    READY_WITHIN_SECONDS,
    Evidence,
    Fault,
    UnprovenError,
    node_of,
)
from tests.chaos.faults.processes import Kill
from tests.chaos.rig.watch import LogTail, is_stopped

MOST_SEGMENTS = 40  # of the log, which may be preallocated when its disk is full


class BrokerKill(Kill):
    """SIGKILL of a broker; its partitions get other leaders."""

    about = "kill -9 of a broker and its restart; proof: others led every partition that it had led"

    async def before(self) -> Evidence:
        """It leads partitions, and all copies are in sync."""
        self._led = await self.context.leadership.led_by(node_of(self.target))
        if not self._led:
            raise UnprovenError(f"{self.target} leads nothing")
        if not await self.context.leadership.is_whole():
            raise UnprovenError("not all copies are in sync")
        return {**self.at_work(), "leads": self._led}

    async def inject(self) -> None:
        """Kill it and watch its leaders move."""
        await super().inject()
        self._moved = await self.context.leadership.until_led_by_others(node_of(self.target), seconds=20.0)

    async def proof(self) -> Evidence:
        """It was gone, its leaders moved, it is back, and all copies are in sync."""
        if self._moved is None:
            raise UnprovenError("no other broker led its partitions")
        evidence = await super().proof()
        if not await self.context.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not get in sync again")
        return {**evidence, "led": self._led, "leaders_moved_seconds": round(self._moved, 2)}


class BrokerFreeze(Fault):
    """SIGSTOP of a broker beyond its session: a leader that does not know that it is deposed."""

    about = "SIGSTOP of a broker longer than its session; proof: others led its partitions meanwhile"

    before = BrokerKill.before

    async def inject(self) -> None:
        """Freeze it and watch its leaders move."""
        self._began = time.monotonic()
        self._pid = self.context.pid(self.target)
        self.context.supervisor.kill(self.target, signal.SIGSTOP)
        self._moved = await self.context.leadership.until_led_by_others(node_of(self.target), seconds=20.0)

    async def heal(self) -> None:
        """Wake it."""
        self._held = time.monotonic() - self._began
        self.context.supervisor.kill(self.target, signal.SIGCONT)

    async def proof(self) -> Evidence:
        """It was frozen beyond its session, and its leaders moved."""
        if self._moved is None or self._held <= BROKER_SESSION_SECONDS:
            raise UnprovenError(f"frozen for {self._held:.1f} s, leaders moved: {self._moved}")
        if not await self.context.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not get in sync again")
        return {
            "pid": self._pid,
            "frozen_seconds": round(self._held, 2),
            "leaders_moved_seconds": round(self._moved, 2),
        }


class DiskFull(Fault):
    """A disk fills up and is freed again: that of one broker, or that of the database's log."""

    about = "the small tmpfs under a broker, or under the log of Postgres, fills up and is freed; proof: it reported that no space was left"

    async def before(self) -> Evidence:
        """The broker leads and all copies are in sync, or the database commits."""
        if self.target == "postgres":
            return await PostmasterKill(self.planned, self.context).before()
        return await BrokerKill(self.planned, self.context).before()

    async def inject(self) -> None:
        """Fill the disk, and make the database ask for space at once."""
        self._pid = self.context.pid(self.target)
        self._tail = LogTail(self.context.logs / f"{self.target}.log")
        self._free = await asyncio.to_thread(self.context.disks[self.target].fill)
        if self.target == "postgres":
            await self._use_log_up()

    async def heal(self) -> None:
        """Free the disk; the supervisor restarts what ended for lack of space."""
        await asyncio.to_thread(self.context.disks[self.target].free)

    async def proof(self) -> Evidence:
        """It reported that no space was left, and is back: a broker with all copies, the database with an advancing ledger."""
        lines = self._tail.count("No space left")
        if not lines:
            raise UnprovenError(f"{self.target} did not notice")
        evidence: Evidence = {"free_bytes": self._free, "no_space_lines": lines}
        await self.context.until(self._is_ready, f"{self.target} to be ready", seconds=READY_WITHIN_SECONDS)
        if self.target == "postgres":
            before = self.context.watch.ledger
            await self.context.until(
                lambda: self.context.watch.ledger > before, "the ledger to go on", seconds=READY_WITHIN_SECONDS
            )
        elif not await self.context.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not get in sync again")
        return {**evidence, "ended": self.context.state(self.target).pid != self._pid}

    def _is_ready(self) -> bool:
        return self.context.state(self.target).phase is Phase.READY

    async def _use_log_up(self) -> None:
        """Request new log segments until none is left."""
        with contextlib.suppress(*DATABASE_AWAY_ERRORS):
            for _ in range(MOST_SEGMENTS):
                await self.context.watch.ask(
                    "SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'chaos', 'full')"
                )


class PostmasterKill(Fault):
    """SIGKILL of the postmaster: every connection ends, and the server recovers from its log."""

    about = "kill -9 of the Postgres server; proof: another start time, and the ledger advances again"

    async def before(self) -> Evidence:
        """Batches are committed."""
        if not self.context.watch.ledger_is_moving():
            raise UnprovenError("nothing is committed")
        return {"pid": self.context.pid(self.target), "ledger": self.context.watch.ledger}

    async def inject(self) -> None:
        """Kill the postmaster alone; its children notice."""
        self._pid = self.context.pid(self.target)
        os.kill(self._pid, signal.SIGKILL)

    async def proof(self) -> Evidence:
        """A new server runs, and counting continues."""
        back = await self.context.until_back(self.target, after=self._pid)
        before = self.context.watch.ledger
        went_on = await self.context.until(
            lambda: self.context.watch.ledger > before, "the ledger to go on", seconds=READY_WITHIN_SECONDS
        )
        return {
            "killed_pid": self._pid,
            "pid": self.context.pid(self.target),
            "back_seconds": back,
            "ledger_went_on_seconds": went_on,
        }


class PostgresFreeze(Fault):
    """SIGSTOP of the server with all its backends: connections stay open, and nobody answers."""

    about = "SIGSTOP of Postgres with all its backends, then SIGCONT; proof: all were stopped, and the ledger advances again"

    before = PostmasterKill.before

    async def inject(self) -> None:
        """Stop the postmaster, so that it starts no more backends, and then all that it has started."""
        self._began = time.monotonic()
        server = psutil.Process(self.context.pid(self.target))
        server.suspend()
        self._frozen = [server, *server.children(recursive=True)]
        for process in self._frozen[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        self._ledger = self.context.watch.ledger

    async def heal(self) -> None:
        """Wake all of them."""
        self._held = time.monotonic() - self._began
        self._stopped = sum(is_stopped(process.pid) for process in self._frozen)
        for process in reversed(self._frozen):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    async def proof(self) -> Evidence:
        """None of them ran, and counting continues."""
        if self._stopped < len(self._frozen):
            raise UnprovenError(f"{self._stopped} of {len(self._frozen)} processes were stopped")
        went_on = await self.context.until(
            lambda: self.context.watch.ledger > self._ledger, "the ledger to go on", seconds=READY_WITHIN_SECONDS
        )
        return {"processes": self._stopped, "frozen_seconds": round(self._held, 2), "ledger_went_on_seconds": went_on}


class BackendKill(Fault):
    """pg_terminate_backend of one of our connections, preferably a working one."""

    about = "pg_terminate_backend of a random connection of one of our processes; proof: the backend is gone"

    CANDIDATES: ClassVar[str] = (
        "SELECT pid, application_name, state, left(query, 80) AS query FROM pg_stat_activity"
        " WHERE application_name LIKE 'fincoach-%' AND pid <> pg_backend_pid()"
    )

    async def before(self) -> Evidence:
        """There are connections, and batches are committed."""
        try:
            found = await self.context.watch.rows(self.CANDIDATES)
        except DATABASE_AWAY_ERRORS as error:
            raise UnprovenError(f"the database is away: {error!r}") from error
        if not found or not self.context.watch.ledger_is_moving():
            raise UnprovenError("nobody is connected, or nothing is committed")
        return {"connections": len(found)}

    async def inject(self) -> None:
        """End one."""
        rows: list[dict[str, Any]] = []
        for _ in range(20):
            rows = await self.context.watch.rows(self.CANDIDATES)
            if busy := [row for row in rows if row["state"] != "idle"]:
                rows = busy
                break
        if not rows:
            raise UnprovenError("nobody is connected any more")
        self._victim = rows[int(self.context.generator.integers(len(rows)))]
        self._ended = await self.context.watch.ask("SELECT pg_terminate_backend($1)", self._victim["pid"])

    async def proof(self) -> Evidence:
        """The backend is gone."""
        if not self._ended or birth_of(self._victim["pid"]) is not None:
            await self.context.until(
                lambda: birth_of(self._victim["pid"]) is None, "the backend to be gone", seconds=5.0
            )
        return dict(self._victim)
