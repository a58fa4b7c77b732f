"""What a law says about a run: whether it holds, and in one sentence on what that rests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST_COMPLAINTS_SHOWN = 4
NOT_SHOWN = "not shown"  # how the detail of a law begins for which too little was there to judge


@dataclass(frozen=True, slots=True)
class Law:
    """A law's verdict. One that was not shown often enough does not hold: ``detail`` says what was missing."""

    holds: bool
    detail: str


def verdict(complaints: Iterable[str], *, seen: Mapping[str, tuple[int, int]]) -> Law:
    """Return the verdict: ``seen`` says of each thing how many there were, and how many it takes to count as shown."""
    found = list(complaints)
    missing = [f"{number:,} {name}, at least {least:,}" for name, (number, least) in seen.items() if number < least]
    shown = ", ".join(f"{number:,} {name}" for name, (number, _) in seen.items())
    if found:
        more = f" … and {len(found) - MOST_COMPLAINTS_SHOWN:,} more" if len(found) > MOST_COMPLAINTS_SHOWN else ""
        return Law(holds=False, detail="; ".join(found[:MOST_COMPLAINTS_SHOWN]) + more + f" ({shown})")
    if missing:
        return Law(holds=False, detail=f"{NOT_SHOWN}: {'; '.join(missing)}")
    return Law(holds=True, detail=shown)
