"""Decides which fault hits which target, and when: a pure function of the seed.

Faults overlap only where the system can still heal: at most one broker is away, never a broker and the database at once,
at most one streams worker is stalled, and no target is hit twice at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

FIRST_AT_SECONDS = 4.0
LAST_ENDS_BEFORE_SECONDS = 1.0


class PlannedFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. ``seconds`` is its duration; ``size`` depends on the kind (a clock shift in seconds, a delay)."""

    number: int
    kind: str
    target: str
    at_seconds: float
    seconds: float
    size: float = 0.0

    @property
    def claims(self) -> frozenset[str]:
        """Return what no other fault may disturb meanwhile."""
        return claims_of(self.kind, self.target)


@dataclass(frozen=True, kw_only=True)
class KindRule:
    """How a kind is drawn: its weight, its possible targets, its duration, and the time until the system has healed."""

    weight: int
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)
    heals_within_seconds: float = 8.0
    sizes: tuple[float, ...] = ()


def claims_of(kind: str, target: str) -> frozenset[str]:
    """Return what a fault reserves: its target, and the shared parts that must not be weakened twice."""
    claims = {target}
    if target.startswith("broker") or kind in {"postmaster_kill", "disk_full"} or target == "postgres":
        claims.add("services")
    if target.startswith("streams") and kind not in {"kill", "clock_jump"}:
        claims.add("counting")
    return frozenset(claims)


def planned(
    seed: int, *, seconds: float, every_seconds: float, rules: Mapping[str, KindRule], only: Collection[str] = ()
) -> tuple[PlannedFault, ...]:
    """Return the faults of a run of ``seconds``, about one every ``every_seconds``, in order of time.

    Every kind comes once before any kind repeats: kinds are drawn from a bag that holds each one as often as its weight.
    """
    generator = np.random.default_rng([seed, 1])
    chosen = {kind: rule for kind, rule in rules.items() if not only or kind in only}
    faults: list[PlannedFault] = []
    busy: list[tuple[float, frozenset[str]]] = []  # (busy until, claims)
    bag: list[str] = []
    at = FIRST_AT_SECONDS
    while chosen and at < seconds:
        if not bag:
            bag = _bag(generator, chosen)
        busy = [(until, claims) for until, claims in busy if until > at]
        taken = frozenset().union(*(claims for _, claims in busy))
        fault = _drawn(generator, bag, chosen, taken=taken, at=at, number=len(faults) + 1)
        if fault is not None and fault.at_seconds + fault.seconds <= seconds - LAST_ENDS_BEFORE_SECONDS:
            faults.append(fault)
            busy.append((at + fault.seconds + chosen[fault.kind].heals_within_seconds, fault.claims))
        at += every_seconds * float(generator.uniform(0.6, 1.4))
    return tuple(faults)


def _bag(generator: np.random.Generator, rules: Mapping[str, KindRule]) -> list[str]:
    """Return a bag from which ``pop`` takes every kind once, in random order, and then the rest of the weights."""
    rest = [kind for kind, rule in rules.items() for _ in range(rule.weight - 1)]
    return [*_shuffled(generator, rest), *_shuffled(generator, list(rules))]


def _shuffled(generator: np.random.Generator, items: Sequence[str]) -> list[str]:
    return [items[int(place)] for place in generator.permutation(len(items))]


def _drawn(
    generator: np.random.Generator,
    bag: list[str],
    rules: Mapping[str, KindRule],
    *,
    taken: frozenset[str],
    at: float,
    number: int,
) -> PlannedFault | None:
    """Take the first kind from the bag that has a free target; return None if no kind has one."""
    for place in reversed(range(len(bag))):
        kind = bag[place]
        rule = rules[kind]
        free = [target for target in rule.targets if not claims_of(kind, target) & taken]
        if free:
            del bag[place]
            return PlannedFault(
                number=number,
                kind=kind,
                target=free[int(generator.integers(len(free)))],
                at_seconds=round(at, 2),
                seconds=round(float(generator.uniform(*rule.seconds)), 2),
                size=float(rule.sizes[int(generator.integers(len(rule.sizes)))]) if rule.sizes else 0.0,
            )
    return None
