"""The traps that stop a streams worker with a batch in hand: a worker that was started with one can be stopped again and again."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

POINT = "batch:before"


class BatchInHand(NamedTuple):
    """The batch with which a worker has stopped: it begins at ``from_offset``, and nothing of it is written."""

    partition: int
    from_offset: int


class BatchTraps:
    """One trap for each worker that was started by its :meth:`launcher`; it springs once each time that it is armed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def launcher(self, name: str, room: str) -> tuple[str, ...]:
        """Return module and arguments that start ``room`` with the trap of ``name`` in it."""
        return (
            *("tests.chaos.rig.launch", "--at", POINT, "--act", "stop", "--again"),
            *("--when", str(self._armed(name)), "--trace", str(self._trace(name)), "--", room),
        )

    def arm(self, name: str) -> None:
        """Let the worker stop at its next batch."""
        self._armed(name).touch()

    def disarm(self, name: str) -> None:
        """Let it go on counting; a trap that has sprung has disarmed itself."""
        self._armed(name).unlink(missing_ok=True)

    def sprung(self, name: str, pid: int) -> BatchInHand | None:
        """Return the batch with which process ``pid`` was stopped last."""
        trace = self._trace(name)
        lines = trace.read_bytes().splitlines() if trace.exists() else []
        found = [said for line in lines if (said := msgspec.json.decode(line))["pid"] == pid and said.get("batch")]
        return BatchInHand(*found[-1]["batch"]) if found else None

    def _armed(self, name: str) -> Path:
        return self._folder / f"{name}.armed"

    def _trace(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"
