"""Observes from outside what the processes do; the evidence of faults is based on it.

It uses none of the product's code: processor time comes from the kernel, the ledger from plain SQL, metrics and logs as text.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
import msgspec
import psutil

from backends.clock import Clock
from backends.database.engine import DATABASE_AWAY_ERRORS

if TYPE_CHECKING:
    from stack.processes import ProcessState

LOOK_SECONDS = 0.5
RECENT_SECONDS = 4.0
LEDGER = "SELECT partition, next_offset FROM ledger WHERE topic = 'fincoach.behavioral-events'"
_TIMESTAMP = re.compile(r'"timestamp": ?"([^"]+)"')
_RECORDS = re.compile(r"^fincoach_streams_records_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
States = Callable[[], Sequence["ProcessState"]]


def database_address(url: str) -> str:
    """Return an SQLAlchemy address in the form that asyncpg accepts."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


class Watch:
    """Looks twice a second. ``moved`` holds when each process was last seen working (monotonic seconds)."""

    def __init__(self, states: States, *, database_url: str, worker_urls: dict[str, str]) -> None:
        self.moved: dict[str, float] = {}
        self.ledger = 0
        self.positions: dict[int, int] = {}
        self.ledger_moved_at = float("-inf")
        self._states = states
        self._database_url = database_address(database_url)
        self._worker_urls = worker_urls
        self._records: dict[str, float] = {}
        self._processor: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        async with httpx.AsyncClient(timeout=1.0) as client:
            while True:
                self._look_at_processors()
                await asyncio.gather(
                    self._look_at_ledger(), *(self._look_at_worker(client, name) for name in self._worker_urls)
                )
                await asyncio.sleep(LOOK_SECONDS)

    def worked_seconds_ago(self, name: str) -> float:
        """Return for how many seconds a process has not been seen working."""
        return time.monotonic() - self.moved.get(name, float("-inf"))

    def is_at_work(self, name: str) -> bool:
        """Return whether a process was seen working within the last seconds."""
        return self.worked_seconds_ago(name) < RECENT_SECONDS

    def ledger_is_moving(self) -> bool:
        """Return whether batches were committed within the last seconds."""
        return time.monotonic() - self.ledger_moved_at < RECENT_SECONDS

    def _look_at_processors(self) -> None:
        for state in self._states():
            if state.pid is None or state.name in self._worker_urls:
                continue
            seconds = processor_seconds(state.pid)
            before = self._processor.get(state.name)
            if seconds is not None and before is not None and before[0] == state.pid and seconds > before[1]:
                self.moved[state.name] = time.monotonic()
            if seconds is not None:
                self._processor[state.name] = (state.pid, seconds)

    async def _look_at_ledger(self) -> None:
        with contextlib.suppress(*DATABASE_AWAY_ERRORS):
            async with asyncio.timeout(1.5):
                self.positions = {row["partition"]: row["next_offset"] for row in await self.rows(LEDGER)}
            found = sum(self.positions.values())
            if found > self.ledger:
                self.ledger, self.ledger_moved_at = found, time.monotonic()
                self.moved["postgres"] = self.ledger_moved_at

    async def ask(self, query: str, *arguments: object) -> Any:  # noqa: ANN401 - any value
        """Return one value from the database, over a new connection."""
        connection = await asyncpg.connect(self._database_url, timeout=2.0)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            connection.terminate()

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Return rows from the database, over a new connection."""
        connection = await asyncpg.connect(self._database_url, timeout=5.0)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            connection.terminate()

    async def _look_at_worker(self, client: httpx.AsyncClient, name: str) -> None:
        """A streams worker is working if it has counted records since the last look."""
        try:
            answer = await client.get(f"{self._worker_urls[name]}/metrics")
        except httpx.HTTPError:
            return
        records = sum(map(float, _RECORDS.findall(answer.text)))
        if records > self._records.get(name, 0.0):
            self.moved[name] = time.monotonic()
        self._records[name] = records


def processor_seconds(pid: int) -> float | None:
    """Return the processor time of a process; None if it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


class LogTail:
    """What a process has logged since this object was created."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = path.stat().st_size if path.exists() else 0

    def count(self, *words: str) -> int:
        """Return how many new lines contain one of ``words``."""
        return sum(any(word in line for word in words) for line in self.lines())

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the new log entries named ``event``."""
        found = []
        for line in self.lines():
            with contextlib.suppress(msgspec.DecodeError):
                entry = msgspec.json.decode(line)
                if isinstance(entry, dict) and entry.get("event") == event:
                    found.append(entry)
        return found

    def shifts(self, clock: Clock) -> list[float]:
        """Return by how many seconds the timestamps of the new lines differ from now."""
        now = clock.now().timestamp()
        stamps = [found.group(1) for line in self.lines() if (found := _TIMESTAMP.search(line))]
        return [round(dt.datetime.fromisoformat(stamp).timestamp() - now, 1) for stamp in stamps]

    def lines(self) -> list[str]:
        """Return the new lines."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace").splitlines()


def is_stopped(pid: int) -> bool:
    """Return whether a process exists and is stopped."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
