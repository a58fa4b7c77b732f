"""Comparisons and how they are shown: medians, ratios, the table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


class Comparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the table: our figure and the peer's, in the same unit, from the same run.

    ``ratio`` is ours / peer, both for rates (higher is better) and times (lower is better). Without a peer, ``peer`` holds
    the bound that ours must not exceed. ``aim`` describes the target ratio, ``met`` whether it is reached. A comparison
    that could not be made has no figures; ``skipped`` gives the reason.
    """

    name: str
    ours: float | None
    peer: float | None
    peer_name: str
    unit: str
    ratio: float | None
    command: str
    skipped: str | None = None
    aim: str | None = None
    met: bool | None = None


class Aim(msgspec.Struct, frozen=True):
    """The target of a ratio: at least, or at most, ``ratio``."""

    at_least: bool
    ratio: float

    def __str__(self) -> str:
        """Return the aim in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.ratio:.2f}"

    def is_met(self, ratio: float) -> bool:
        """Whether ``ratio`` meets the aim."""
        return ratio >= self.ratio if self.at_least else ratio <= self.ratio


# The promised ratios; other comparisons only inform.
AIMS = {
    "ingest_vs_naive_faust": Aim(at_least=True, ratio=8.0),
    "ingest_vs_bare_sql": Aim(at_least=True, ratio=0.7),
    "ingest_vs_quix_postgres": Aim(at_least=True, ratio=1.3),
    "ingest_with_duplicates_vs_without": Aim(at_least=True, ratio=0.9),
}


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of both sides, in the order of the rounds."""

    ours: list[float] = []
    peer: list[float] = []

    def add(self, *, ours: float, peer: float) -> None:
        """Add a round."""
        self.ours.append(ours)
        self.peer.append(peer)


def compare(name: str, samples: Samples, *, peer_name: str, unit: str) -> Comparison:
    """Return the comparison of the medians of both sides.

    Raises:
        ValueError: nothing was measured, or the peer's median is not positive.
    """
    if not samples.ours or len(samples.ours) != len(samples.peer):
        raise ValueError(f"{name}: both sides need the same number of rounds, at least one")
    ours, peer = statistics.median(samples.ours), statistics.median(samples.peer)
    if peer <= 0:
        raise ValueError(f"{name}: the peer's median is {peer}, so there is no ratio")
    return Comparison(
        name=name,
        ours=round(ours, 3),
        peer=round(peer, 3),
        peer_name=peer_name,
        unit=unit,
        ratio=round(ours / peer, 3),
        command=command_of(name),
        **_judged(AIMS.get(name), ours / peer),
    )


def bounded(name: str, ours: float, *, bound: float, unit: str) -> Comparison:
    """Return the comparison with a bound, for figures without a peer."""
    return Comparison(
        name=name,
        ours=round(ours, 3),
        peer=bound,
        peer_name=f"the bound: at most {bound:g} {unit}",
        unit=unit,
        ratio=round(ours / bound, 3),
        command=command_of(name),
        **_judged(Aim(at_least=False, ratio=1.0), ours / bound),
    )


def _judged(aim: Aim | None, ratio: float) -> dict[str, Any]:
    return {"aim": str(aim), "met": aim.is_met(ratio)} if aim else {}


def skipped(name: str, reason: str, *, peer_name: str, unit: str) -> Comparison:
    """Return a comparison that could not be made."""
    return Comparison(
        name=name,
        ours=None,
        peer=None,
        peer_name=peer_name,
        unit=unit,
        ratio=None,
        command=command_of(name),
        skipped=reason,
    )


def command_of(name: str) -> str:
    """Return the command that repeats one comparison."""
    return f'make bench ARGS="--only {name}"'


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (in 0..1) of ``values`` do not exceed.

    Raises:
        ValueError: there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, no percentile")
    rank = -(-share * len(ordered) // 1)  # rounded up
    return ordered[max(int(rank) - 1, 0)]


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a table; a line for each skipped one follows it."""
    rows = [("comparison", "ours", "peer", "unit", "ours/peer", "aim", "peer is")]
    rows += [
        (item.name, _figure(item.ours), _figure(item.peer), item.unit, _ratio(item.ratio), _aim(item), item.peer_name)
        for item in comparisons
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"skipped: {item.name}: {item.skipped}" for item in comparisons if item.skipped]
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in {1, 2, 4} else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _aim(item: Comparison) -> str:
    if item.aim is None:
        return "-"
    return f"{item.aim}{'' if item.met is None else ': met' if item.met else ': missed'}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
