"""The processor time of processes, and the ceiling of the rate that follows from it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Processors:
    """Named processes, with the processor time of each and all of its children."""

    pids: Mapping[str, int]

    def with_process(self, name: str, pid: int) -> Processors:
        """Return a copy with one more process."""
        return Processors({name: pid, **self.pids})

    def seconds(self) -> dict[str, float]:
        """Return the seconds of processor time that each process has used since its start."""
        return {name: _seconds(psutil.Process(pid)) for name, pid in self.pids.items()}


def used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds used between two readings. Pure."""
    return {name: max(after[name] - before[name], 0.0) for name in after}


def processor_table(seconds: Mapping[str, float], *, events: int, rate: float, written_bytes: int, cores: int) -> str:
    """Return the limits of ingestion: processor time and log bytes per event, and the ceilings. Pure.

    ``seconds`` were used and ``written_bytes`` written while ``events`` were ingested at ``rate`` events/s on ``cores``.
    """
    micros = {name: 1e6 * spent / events for name, spent in seconds.items()}
    whole = sum(micros.values())
    worker = max(micros.values())
    log = written_bytes / events
    ceiling = cores * 1e6 / whole
    return "\n".join(
        (
            "the limit, microseconds of processor time per event:",
            *(f"  {name:16} {spent:6.2f}" for name, spent in micros.items()),
            f"  {'whole':16} {whole:6.2f}",
            f"  {cores} cores, never idle: {ceiling:,.0f} events/s; reached {rate:,.0f}, {rate / ceiling:.0%} of it",
            f"  the most expensive process on its own core: {1e6 / worker:,.0f} events/s",
            f"  Postgres writes {log:,.0f} bytes of log per event, {rate * log / 1e6:,.1f} MB/s at this rate",
        )
    )


def _seconds(process: psutil.Process) -> float:
    """Return the sum for a process, its live children and the reaped ones (Postgres starts and ends backends)."""
    times = process.cpu_times()
    whole = float(times.user + times.system + times.children_user + times.children_system)
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            own = child.cpu_times()
            whole += float(own.user + own.system + own.children_user + own.children_system)
    return whole
