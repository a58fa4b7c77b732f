"""The findings of a run, as a document and as lines for a person."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.oracle.invariants import Verdict
from tests.chaos.producers.journal import read_lines


class ChaosReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a run. ``faults`` counts proven faults only; ``own_exits`` counts exits of processes that nobody killed."""

    seed: int
    seconds: float
    faults: dict[str, int]
    unproven: dict[str, int]
    invariants: dict[str, Verdict]
    events: dict[str, Any]
    predictions: dict[str, Any]
    swaps: dict[str, int]
    own_exits: dict[str, int]
    caught_up_seconds: float | None
    ok: bool


def count_events(folder: Path) -> dict[str, Any]:
    """Return the sends and acknowledgements in the producers' journals, by kind."""
    sent: Counter[str] = Counter()
    acknowledged = unsent = 0
    for line in read_lines(sorted(folder.glob("*.jsonl"))):
        if line["op"] == "send":
            sent[line["kind"]] += 1
        elif line["op"] == "ack":
            acknowledged += 1
        else:
            unsent += 1
    return {"sent": sent.total(), "acknowledged": acknowledged, "unsent": unsent, "by_kind": dict(sorted(sent.items()))}


def own_exits(supervisor_log: Path) -> dict[str, int]:
    """Return how often each process ended by itself: by a bug, or because broker or database were away too long."""
    found: Counter[str] = Counter()
    for line in read_lines([supervisor_log]):
        if line["phase"] == "backing_off" and "SIGKILL" not in (line["last_exit"] or ""):
            found[f"{line['name']}: {line['last_exit']}"] += 1
    return dict(sorted(found.items()))


def rendered(report: ChaosReport) -> str:
    """Return the report as lines: the faults, the invariants that hold, then those that do not."""
    faults = ", ".join(f"{number} {kind}" for kind, number in report.faults.items())
    verdicts = sorted(report.invariants.items(), key=lambda item: not item[1].holds)
    lines = [
        f"seed {report.seed}, {report.seconds:g} s, {sum(report.faults.values())} faults ({faults})",
        f"events {report.events}",
        f"predictions {report.predictions}, swaps {report.swaps}, ended by themselves {report.own_exits}",
        *(f"{'holds ' if verdict.holds else 'BROKEN'} {name}: {verdict.detail}" for name, verdict in verdicts),
        "every invariant holds" if report.ok else "NOT OK",
    ]
    return "\n".join(lines)
