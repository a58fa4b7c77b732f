"""Faults of the services: brokers killed, frozen, out of disk; Postgres killed whole or one connection at a time."""

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

MOST_SEGMENTS = 40  # that the log may have in store when its disk is full


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
        self._began = time.monotonic()
        self._pid = self.site.pid(self.target)
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


class DiskFull(Fault):
    """A disk fills up and is emptied again: that of one broker, or that of the database's log."""

    about = "the small tmpfs under a broker, or under the log of Postgres, fills up and is freed; proof: no byte was free and it noticed"

    async def before(self) -> Evidence:
        """The broker leads and all copies are in step; the database commits."""
        if self.target == "postgres":
            return await PostmasterKill(self.planned, self.site).before()
        return await BrokerKill(self.planned, self.site).before()

    async def inject(self) -> None:
        """Fill it, and let the database ask for space at once."""
        self._pid = self.site.pid(self.target)
        self._tail = LogTail(self.site.logs / f"{self.target}.log")
        self._free = await asyncio.to_thread(self.site.disks[self.target].fill)
        if self.target == "postgres":
            await self._use_log_up()

    async def heal(self) -> None:
        """Free it; what ended for want of space is started again by its supervisor."""
        await asyncio.to_thread(self.site.disks[self.target].free)

    async def proof(self) -> Evidence:
        """It said that no space was left, and is back: a broker with all copies, the database with a ledger that goes on."""
        lines = self._tail.count("No space left")
        if not lines:
            raise UnprovenError(f"{self.target} did not notice")
        evidence: Evidence = {"free_bytes": self._free, "no_space_lines": lines}
        await self.site.until(self._is_ready, f"{self.target} to be ready", seconds=READY_WITHIN_SECONDS)
        if self.target == "postgres":
            before = self.site.watch.ledger
            await self.site.until(
                lambda: self.site.watch.ledger > before, "the ledger to go on", seconds=READY_WITHIN_SECONDS
            )
        elif not await self.site.leadership.until_whole(seconds=READY_WITHIN_SECONDS):
            raise UnprovenError("the copies did not come into step again")
        return {**evidence, "ended": self.site.state(self.target).pid != self._pid}

    def _is_ready(self) -> bool:
        return self.site.state(self.target).phase is Phase.READY

    async def _use_log_up(self) -> None:
        """Ask for a new segment of the log until there is none."""
        with contextlib.suppress(*DATABASE_AWAY_ERRORS):
            for _ in range(MOST_SEGMENTS):
                await self.site.watch.ask("SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'chaos', 'full')")


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


class PostgresFreeze(Fault):
    """SIGSTOP of the server with all its backends: connections stand, and nobody answers on them."""

    about = "SIGSTOP of Postgres with all its backends, then SIGCONT; proof: all were stopped, and the ledger goes on"

    before = PostmasterKill.before

    async def inject(self) -> None:
        """Stop the postmaster, so that it starts no more, and then all that it has started."""
        self._began = time.monotonic()
        server = psutil.Process(self.site.pid(self.target))
        server.suspend()
        self._frozen = [server, *server.children(recursive=True)]
        for process in self._frozen[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        self._ledger = self.site.watch.ledger

    async def heal(self) -> None:
        """Let all of them go on."""
        self._held = time.monotonic() - self._began
        self._stopped = sum(is_stopped(process.pid) for process in self._frozen)
        for process in reversed(self._frozen):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    async def proof(self) -> Evidence:
        """None of them ran, and what was counted goes on."""
        if self._stopped < len(self._frozen):
            raise UnprovenError(f"{self._stopped} of {len(self._frozen)} processes were stopped")
        went_on = await self.site.until(
            lambda: self.site.watch.ledger > self._ledger, "the ledger to go on", seconds=READY_WITHIN_SECONDS
        )
        return {"processes": self._stopped, "frozen_seconds": round(self._held, 2), "ledger_went_on_seconds": went_on}


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
        except DATABASE_AWAY_ERRORS as error:
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
