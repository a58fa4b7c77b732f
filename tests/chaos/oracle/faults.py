"""The laws of the run itself: faults that really hit, zombies that were refused, and everything caught up in time. Pure."""

from __future__ import annotations

from collections import Counter

from tests.chaos.oracle.invariants import Law, verdict
from tests.chaos.oracle.world import Json, World

CAUGHT_UP_SECONDS = 20.0
SECONDS_PER_FAULT = 9.0  # so that a run of 900 s holds 100
SURELY_ONCE = 4  # a kind that was planned so often must have been proven once


def faults_hit(world: World) -> Law:
    """Enough faults of every kind were injected, each with evidence that it hit; no zombie went on with its batch.

    A line of the timeline with the phase ``end`` is a fault that was proven and healed. One that could not be shown to
    have hit does not count. A worker that woke with a batch in hand, which others had counted, must have been refused,
    each single one. One that was frozen at any moment may have had nothing in hand: of those it takes one, or as many
    as the run demands.
    """
    faults = [line for line in world.timeline if line.get("phase") == "end"]
    kinds = Counter(str(line["kind"]) for line in faults)
    complaints = [f"fault {line} has no evidence that it hit" for line in faults if not line.get("evidence")]
    complaints += [name for line in faults if (name := _unrefused(line))]
    frozen = [line for line in faults if "freeze" in line["kind"] and str(line["target"]).startswith("streams")]
    refused = int(world.run.get("zombies_refused", 0))
    if frozen and refused < world.least("refused zombies"):
        complaints.append(f"workers were frozen {len(frozen)} times and {refused or 'no'} zombie was refused")
    # A run with chosen kinds of faults alone looks for something; it is no storm.
    is_aimed = bool(world.run.get("settings", {}).get("only"))
    fewest = max(world.least("faults"), 0 if is_aimed else int(world.run.get("seconds", 0) / SECONDS_PER_FAULT))
    planned: dict[str, int] = world.run.get("planned", {})
    each = {kind: (kinds[kind], int(planned.get(kind, 0) >= SURELY_ONCE)) for kind in sorted({*kinds, *planned})}
    zombies = {"refused zombies": (refused, 0)} if frozen else {}
    return verdict(complaints, seen={"faults": (len(faults), fewest), **each, **zombies})


def _unrefused(fault: Json) -> str:
    """Return a complaint where a worker woke with a batch in hand and nobody refused it."""
    evidence = fault.get("evidence") or {}
    if "batch" not in evidence or evidence.get("refused_by"):
        return ""
    return f"{fault['target']} woke with the batch {evidence['batch']} in hand, others had counted it, and it was not refused"


def caught_up(world: World) -> Law:
    """After the faults ended everything has caught up in time."""
    seconds = world.run.get("caught_up_seconds")
    if seconds is None:
        return Law(holds=False, detail="it never caught up")
    return Law(holds=seconds <= CAUGHT_UP_SECONDS, detail=f"in {seconds:.1f} s (at most {CAUGHT_UP_SECONDS:.0f} s)")
