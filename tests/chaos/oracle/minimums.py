"""How much a chaos run must contain before its invariants count as exercised: the longer the run, the more. Pure."""

from __future__ import annotations

SHORT_SECONDS = 90.0  # the start takes a large part of such a run
# Per second of load: at most a third of what slow machines have shown.
BY_SECOND = {
    "events": 100.0,
    "duplicates": 5.0,
    "dead letters": 2.0,
    "panes": 1.0,
    "epochs": 0.05,
    "trainings": 0.02,
    "announcements": 2.0,
    "predictions": 3.0,
    "swaps": 0.03,
}
EACH = {"users": 200, "models with epochs": 4, "replicas": 3, "deployment states": 4}
SECONDS_PER_ZOMBIE = 225.0  # with a batch in hand: twelve are planned in 900 s, one in some runs of 60 s


def minimums(*, seconds: float, has_all_faults: bool) -> dict[str, int]:
    """Return the minimum of each thing for a run with ``seconds`` of load."""
    found = {name: max(1, int(rate * seconds)) for name, rate in BY_SECOND.items()} | EACH
    if seconds < SHORT_SECONDS:
        found |= {"users": 100, "models with epochs": 2}
    zombies = int(seconds / SECONDS_PER_ZOMBIE) if has_all_faults else 0
    return found | {"refused zombies": zombies, "faults": 5 if has_all_faults else 1}
