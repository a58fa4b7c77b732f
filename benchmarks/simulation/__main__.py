"""``python -m benchmarks.simulation``: compares fixed and adaptive thresholds on real data sets, as a table and a plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.simulation.arrivals import REAL, Arrival, real, synthetic
from benchmarks.simulation.plot import svg
from benchmarks.simulation.year import Year, simulate, variants
from schemas.errors import SettingsError
from schemas.vocabulary import ModelType

# The defaults of an installation: threshold and cool-down in seconds.
RULES: dict[ModelType, tuple[int, int]] = {
    "spending": (1_000, 0),
    "segmentation": (100, 0),
    "goal": (50, 300),
}
COLUMNS = {
    "trainings": "trainings",
    "busiest_day": "on the busiest day",
    "points_per_training": "points each",
    "waiting_points_mean": "points waiting, mean",
    "waiting_points_p95": "p95",
    "waited_hours_mean": "hours waited, mean",
    "waited_hours_p95": "p95",
}


def years_of(model_type: ModelType, arrivals: Sequence[Arrival]) -> list[Year]:
    """Return the year of each variant; a model without a cool-down has no variants of it."""
    threshold, cool_down = RULES[model_type]
    return [
        simulate(arrivals, variant)
        for variant in variants(threshold, cool_down_seconds=cool_down)
        if cool_down or "cool-down" not in variant.name
    ]


def table(years: Sequence[Year]) -> str:
    """Return the figures as Markdown."""
    rows = [["rule", *COLUMNS.values()], ["---"] * (1 + len(COLUMNS))]
    rows += [[year.name, *(f"{year.figures()[name]:,.0f}" for name in COLUMNS)] for year in years]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of the sets (default: FINCOACH_DATA)")
    parser.add_argument("--synthetic", action="store_true", help="a synthetic year instead, which needs no data set")
    parser.add_argument(
        "--days", metavar="N", type=int, default=365, help="length of the synthetic year (default: 365)"
    )
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write the plot to this file, as SVG")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to this file")
    return parser.parse_args(given)


def arrivals_of(model_type: ModelType, options: argparse.Namespace) -> list[Arrival]:
    """Return the model's arrivals: real ones, or a synthetic year scaled to its threshold."""
    if not options.synthetic:
        return real(model_type, options.data)
    threshold, _ = RULES[model_type]
    return synthetic(days=options.days, mean_a_day=threshold / 20, burst=20 * threshold if model_type == "goal" else 0)


def main(given: Sequence[str]) -> int:
    """Simulate; return 0, or 1 when a set is missing."""
    options = arguments(given)
    try:
        found = {model_type: years_of(model_type, arrivals_of(model_type, options)) for model_type in RULES}
    except SettingsError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    titles = {
        model_type: f"{model_type}, {'synthetic' if options.synthetic else REAL[model_type][0]}, threshold {threshold}"
        for model_type, (threshold, _) in RULES.items()
    }
    for model_type, years in found.items():
        print(f"\n### {titles[model_type]}\n\n{table(years)}")
    if options.plot:
        pairs = {titles[model_type]: _pair(years) for model_type, years in found.items()}
        options.plot.write_text(svg(pairs), encoding="utf-8")
    if options.json:
        figures = {model_type: {year.name: year.figures() for year in years} for model_type, years in found.items()}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    return 0


def _pair(years: Sequence[Year]) -> tuple[Year, Year]:
    named = {year.name: year for year in years}
    return named["fixed"], named["adaptive"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
