"""The laws of the run itself: faults that really hit, zombies that were refused, and everything caught up in time. Pure."""

from __future__ import annotations

from collections import Counter

from tests.chaos.laws import Law, verdict
from tests.chaos.oracle_world import World

CAUGHT_UP_SECONDS = 20.0


def faults_hit(world: World) -> Law:
    """Enough faults were injected, each with evidence that it hit; where workers were frozen, zombies were refused."""
    faults = [line for line in world.timeline if line.get("kind") == "fault"]
    names = Counter(str(line.get("fault") or line.get("name")) for line in faults)
    complaints = [f"fault {line} has no evidence that it hit" for line in faults if not line.get("evidence")]
    frozen = [line for line in faults if line.get("freezes_worker")]
    refused = int(world.run.get("zombies_refused", 0))
    if frozen and refused < 1:
        complaints.append(f"workers were frozen {len(frozen)} times and no zombie was refused")
    seen = world.shown(faults=len(faults))
    return verdict(complaints, seen={**seen, **{name: (number, 1) for name, number in sorted(names.items())}})


def caught_up(world: World) -> Law:
    """After the faults ended everything has caught up in time."""
    seconds = world.run.get("caught_up_seconds")
    if seconds is None:
        return Law(holds=False, detail="it never caught up")
    return Law(holds=seconds <= CAUGHT_UP_SECONDS, detail=f"in {seconds:.1f} s (at most {CAUGHT_UP_SECONDS:.0f} s)")
