"""What was done to the system, and when: one line for the begin and the end of each fault, with the evidence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from backends.clock import Clock
from tests.chaos.faults.plan import PlannedFault


class Timeline:
    """Appends to ``timeline.jsonl`` and counts the faults that are proven."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.proven: Counter[str] = Counter()
        self.unproven: Counter[str] = Counter()
        self.evidence: list[dict[str, Any]] = []

    def begin(self, fault: PlannedFault, evidence: dict[str, Any]) -> None:
        """Record that the fault is about to be injected into a working target."""
        self._write(fault, "begin", evidence)

    def end(self, fault: PlannedFault, evidence: dict[str, Any]) -> None:
        """Record that the fault is healed and proven."""
        self.proven[fault.kind] += 1
        self.evidence.append({"kind": fault.kind, "target": fault.target, **evidence})
        self._write(fault, "end", evidence)

    def unproven_end(self, fault: PlannedFault, reason: str) -> None:
        """Record that the fault did not take effect, or that nothing proves it; it does not count."""
        self.unproven[fault.kind] += 1
        self._write(fault, "unproven", {"reason": reason})

    def note(self, what: str, **facts: Any) -> None:  # noqa: ANN401 - any facts
        """Record something that is not a fault."""
        self._append({"t": self._clock.now().timestamp(), "phase": what, **facts})

    def _write(self, fault: PlannedFault, phase: str, evidence: dict[str, Any]) -> None:
        self._append({
            "t": self._clock.now().timestamp(), "fault": fault.number, "kind": fault.kind, "target": fault.target, "phase": phase,
            "evidence": evidence,
        })  # fmt: skip

    def _append(self, line: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
