"""The verdict on an invariant: whether it holds in a run, and one sentence of evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST_VIOLATIONS_SHOWN = 4
NOT_EXERCISED = "not exercised"  # begins the detail of an invariant for which the run had too little to judge


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one invariant. It does not hold if the run exercised it too little; ``detail`` says what was missing."""

    holds: bool
    detail: str


def verdict_of(violations: Iterable[str], *, seen: Mapping[str, tuple[int, int]]) -> Verdict:
    """Return the verdict. ``seen`` holds, for each thing, how many there were and how many the invariant needs."""
    found = list(violations)
    missing = [f"{number:,} {name}, at least {least:,}" for name, (number, least) in seen.items() if number < least]
    shown = ", ".join(f"{number:,} {name}" for name, (number, _) in seen.items())
    if found:
        more = f" … and {len(found) - MOST_VIOLATIONS_SHOWN:,} more" if len(found) > MOST_VIOLATIONS_SHOWN else ""
        return Verdict(holds=False, detail="; ".join(found[:MOST_VIOLATIONS_SHOWN]) + more + f" ({shown})")
    if missing:
        return Verdict(holds=False, detail=f"{NOT_EXERCISED}: {'; '.join(missing)}")
    return Verdict(holds=True, detail=shown)
