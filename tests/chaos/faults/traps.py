"""Traps that stop a streams worker with a batch in hand. A worker that starts with a trap can be stopped again and again."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

POINT = "batch:before"


class BatchInHand(NamedTuple):
    """The batch that a stopped worker has in hand: it begins at ``from_offset``, and nothing of it is written."""

    partition: int
    from_offset: int


class BatchTraps:
    """One trap for each worker that starts through :meth:`launcher`; it triggers once each time it is armed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def launcher(self, name: str, service: str) -> tuple[str, ...]:
        """Return module and arguments that start ``service`` with the trap of ``name``."""
        return (
            *("tests.chaos.rig.launch", "--at", POINT, "--act", "stop", "--again"),
            *("--when", str(self._armed(name)), "--trace", str(self._trace(name)), "--", service),
        )

    def arm(self, name: str) -> None:
        """Stop the worker at its next batch."""
        self._armed(name).touch()

    def disarm(self, name: str) -> None:
        """Let the worker continue; a triggered trap has disarmed itself."""
        self._armed(name).unlink(missing_ok=True)

    def stopped_batch(self, name: str, pid: int) -> BatchInHand | None:
        """Return the last batch at which process ``pid`` was stopped."""
        trace = self._trace(name)
        lines = trace.read_bytes().splitlines() if trace.exists() else []
        found = [entry for line in lines if (entry := msgspec.json.decode(line))["pid"] == pid and entry.get("batch")]
        return BatchInHand(*found[-1]["batch"]) if found else None

    def _armed(self, name: str) -> Path:
        return self._folder / f"{name}.armed"

    def _trace(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"
