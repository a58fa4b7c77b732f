"""The laws of the run itself: faults that really hit, zombies that were refused, and everything caught up in time. Pure."""

from __future__ import annotations

from collections import Counter

from tests.chaos.laws import Law, verdict
from tests.chaos.oracle_world import World

CAUGHT_UP_SECONDS = 20.0
SECONDS_PER_FAULT = 9.0  # so that a run of 900 s holds 100


def faults_hit(world: World) -> Law:
    """Enough faults were injected, each with evidence that it hit; where workers were frozen, zombies were refused.

    A line of the timeline with the phase ``end`` is a fault that was proven and healed. One that could not be shown to
    have hit does not count.
    """
    faults = [line for line in world.timeline if line.get("phase") == "end"]
    kinds = Counter(str(line["kind"]) for line in faults)
    complaints = [f"fault {line} has no evidence that it hit" for line in faults if not line.get("evidence")]
    frozen = [line for line in faults if "freeze" in line["kind"] and str(line["target"]).startswith("streams")]
    refused = int(world.run.get("zombies_refused", 0))
    if frozen and refused < 1:
        complaints.append(f"workers were frozen {len(frozen)} times and no zombie was refused")
    # A run with chosen kinds of faults alone looks for something; it is no storm.
    is_aimed = bool(world.run.get("settings", {}).get("only"))
    fewest = max(world.least("faults"), 0 if is_aimed else int(world.run.get("seconds", 0) / SECONDS_PER_FAULT))
    each = {kind: (number, 1) for kind, number in sorted(kinds.items())}
    return verdict(complaints, seen={"faults": (len(faults), fewest), **each})


def caught_up(world: World) -> Law:
    """After the faults ended everything has caught up in time."""
    seconds = world.run.get("caught_up_seconds")
    if seconds is None:
        return Law(holds=False, detail="it never caught up")
    return Law(holds=seconds <= CAUGHT_UP_SECONDS, detail=f"in {seconds:.1f} s (at most {CAUGHT_UP_SECONDS:.0f} s)")
