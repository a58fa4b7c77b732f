"""Invariants of the run itself: faults took effect, zombies were refused, and everything caught up in time. Pure."""

from __future__ import annotations

from collections import Counter

from tests.chaos.oracle.invariants import Verdict, verdict_of
from tests.chaos.oracle.world import Json, World

CAUGHT_UP_SECONDS = 20.0
SECONDS_PER_FAULT = 9.0  # so a run of 900 s has 100
PLANNED_OFTEN = 4  # a kind that is planned this often must be proven at least once


def faults_hit(world: World) -> Verdict:
    """Enough faults of every kind took effect, each with evidence, and no zombie continued with its batch.

    A line of the timeline with the phase ``end`` is a fault that was proven and healed; a fault without proof does not
    count. Every worker that woke with a batch in hand, which others had counted, must have been refused. A worker that
    was frozen at any moment may have had no batch: for those, one refusal is enough, or as many as the run requires.
    """
    faults = [line for line in world.timeline if line.get("phase") == "end"]
    kinds = Counter(str(line["kind"]) for line in faults)
    violations = [f"fault {line} has no evidence" for line in faults if not line.get("evidence")]
    violations += [name for line in faults if (name := _unrefused(line))]
    frozen = [line for line in faults if "freeze" in line["kind"] and str(line["target"]).startswith("streams")]
    refused = int(world.run.get("zombies_refused", 0))
    if frozen and refused < world.minimum("refused zombies"):
        violations.append(f"workers were frozen {len(frozen)} times and {refused or 'no'} zombie was refused")
    # A run that is limited to some kinds of faults looks for something particular; it need not have many.
    is_aimed = bool(world.run.get("settings", {}).get("only"))
    fewest = max(world.minimum("faults"), 0 if is_aimed else int(world.run.get("seconds", 0) / SECONDS_PER_FAULT))
    planned: dict[str, int] = world.run.get("planned", {})
    each = {kind: (kinds[kind], int(planned.get(kind, 0) >= PLANNED_OFTEN)) for kind in sorted({*kinds, *planned})}
    zombies = {"refused zombies": (refused, 0)} if frozen else {}
    return verdict_of(violations, seen={"faults": (len(faults), fewest), **each, **zombies})


def _unrefused(fault: Json) -> str:
    """Return a violation if a worker woke with a batch in hand and nobody refused it; otherwise an empty string."""
    evidence = fault.get("evidence") or {}
    if "batch" not in evidence or evidence.get("refused_by"):
        return ""
    return f"{fault['target']} woke with the batch {evidence['batch']} in hand, others had counted it, and it was not refused"


def caught_up(world: World) -> Verdict:
    """Everything catches up in time after the faults."""
    seconds = world.run.get("caught_up_seconds")
    if seconds is None:
        return Verdict(holds=False, detail="it never caught up")
    return Verdict(holds=seconds <= CAUGHT_UP_SECONDS, detail=f"in {seconds:.1f} s (at most {CAUGHT_UP_SECONDS:.0f} s)")
