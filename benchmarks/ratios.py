"""What a measurement is and how it is shown: medians, ratios, the table and the file. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


class Comparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the table: what we took and what the peer took, in the same unit, in the same run.

    ``ratio`` is ours / peer, for rates (higher is better) and times (lower is better) alike. Where there is no peer,
    ``peer`` holds the bound that ours must not exceed. ``aim`` says in words what the ratio should be, ``met`` whether
    it is. A comparison that could not be made has no figures and says why in ``skipped``.
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
    """What a ratio should be: at least, or at most, ``ratio``."""

    at_least: bool
    ratio: float

    def __str__(self) -> str:
        """Return it in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.ratio:.2f}"

    def is_met(self, ratio: float) -> bool:
        """Whether ``ratio`` is what it should be."""
        return ratio >= self.ratio if self.at_least else ratio <= self.ratio


# What was promised; the others say how things stand.
AIMS = {
    "ingest_vs_naive_faust": Aim(at_least=True, ratio=8.0),
    "ingest_vs_bare_sql": Aim(at_least=True, ratio=0.7),
    "ingest_vs_quix_postgres": Aim(at_least=True, ratio=1.3),
    "ingest_with_duplicates_vs_without": Aim(at_least=True, ratio=0.9),
}


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """What one side took in each round, in the order of the rounds."""

    ours: list[float] = []
    peer: list[float] = []

    def add(self, *, ours: float, peer: float) -> None:
        """Take a round."""
        self.ours.append(ours)
        self.peer.append(peer)


def compare(name: str, samples: Samples, *, peer_name: str, unit: str) -> Comparison:
    """Return the comparison of the medians of both sides.

    Raises:
        ValueError: when nothing was measured, or the peer took nothing.
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
    """Return the comparison with a bound, where there is no peer."""
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
    """Return the comparison that could not be made."""
    return Comparison(
        name=name, ours=None, peer=None, peer_name=peer_name, unit=unit, ratio=None, command=command_of(name), skipped=reason
    )  # fmt: skip


def command_of(name: str) -> str:
    """Return the command that repeats one comparison."""
    return f'make bench ARGS="--only {name}"'


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (in 0..1) of ``values`` do not exceed.

    Raises:
        ValueError: for no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, no percentile")
    rank = -(-share * len(ordered) // 1)  # rounded up
    return ordered[max(int(rank) - 1, 0)]


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a table for people; what was skipped follows it, a sentence each."""
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
