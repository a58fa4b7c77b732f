"""The plot of simulated years as a small SVG: waiting data points, fixed against adaptive. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from benchmarks.simulation.year import Year

WIDTH, HEIGHT, MARGIN, GAP = 860, 170, 60, 46
FIXED, ADAPTIVE = "#8a8f98", "#1668b8"
Panel = tuple[Year, Year]  # fixed, adaptive


def svg(panels: Mapping[str, Panel]) -> str:
    """Return one panel below the other: waiting data points by day, and a stroke for each training."""
    height = len(panels) * (HEIGHT + GAP) + GAP
    drawn = [
        _panel(title, years, top=GAP + number * (HEIGHT + GAP)) for number, (title, years) in enumerate(panels.items())
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * MARGIN} {height}"'
        ' font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="100%" height="100%" fill="white"/>{_legend()}'
    return "\n".join([head, background, *drawn, "</svg>\n"])


def _legend() -> str:
    return (
        f'<text x="{MARGIN}" y="18">data points that no model has learned from yet, at the worst hour of each day:'
        f' <tspan fill="{FIXED}" font-weight="bold">fixed</tspan> and <tspan fill="{ADAPTIVE}" font-weight="bold">adaptive</tspan>;'
        " strokes below: trainings</text>"
    )


def _panel(title: str, years: Panel, *, top: int) -> str:
    days = [_by_day(year) for year in years]
    first, last = min(days[0]), max(days[0])
    most = max(1, *(count for day in days for count in day.values()))
    lines = [
        _line(day, colour, first=first, last=last, most=most, top=top)
        for day, colour in zip(days, (FIXED, ADAPTIVE), strict=True)
    ]
    strokes = [
        _strokes(year, colour, first=first, last=last, y=top + HEIGHT + 2 + 7 * row)
        for row, (year, colour) in enumerate(zip(years, (FIXED, ADAPTIVE), strict=True))
    ]
    base = top + HEIGHT
    axes = [
        f'<text x="{MARGIN}" y="{top - 6}" font-weight="bold">{title}</text>',
        f'<path d="M{MARGIN} {top}V{base}H{MARGIN + WIDTH}" fill="none" stroke="#444"/>',
        f'<text x="{MARGIN - 6}" y="{top + 10}" text-anchor="end">{most}</text>',
        f'<text x="{MARGIN - 6}" y="{base}" text-anchor="end">0</text>',
        f'<text x="{MARGIN}" y="{base + 28}">{first}</text>',
        f'<text x="{MARGIN + WIDTH}" y="{base + 28}" text-anchor="end">{last}</text>',
    ]
    return "\n".join([*axes, *lines, *strokes])


def _by_day(year: Year) -> dict[dt.date, int]:
    worst: dict[dt.date, int] = {}
    for at, count in year.waiting:
        worst[at.date()] = max(worst.get(at.date(), 0), count)
    return worst


def _line(worst: Mapping[dt.date, int], colour: str, *, first: dt.date, last: dt.date, most: int, top: int) -> str:
    points = " ".join(
        f"{_x(day, first, last)},{round(top + HEIGHT * (1 - count / most), 1):g}"
        for day, count in sorted(worst.items())
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>'


def _strokes(year: Year, colour: str, *, first: dt.date, last: dt.date, y: int) -> str:
    places: Sequence[float] = sorted({_x(crossing.at.date(), first, last) for crossing in year.crossings})
    path = "".join(f"M{place:g} {y}v6" for place in places)
    return f'<path d="{path}" stroke="{colour}"/>'


def _x(day: dt.date, first: dt.date, last: dt.date) -> float:
    return round(MARGIN + WIDTH * (day - first).days / max((last - first).days, 1), 1)
