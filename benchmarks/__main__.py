"""``python -m benchmarks``: measures against peers on this machine, prints a table, and writes it as JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from backends.telemetry.logs import configure_logs
from benchmarks import crossings, ingestion, memory, prediction, recovery, swaps, transport
from benchmarks.plan import NAMES, Plan, Say, plan_for
from benchmarks.ratios import Comparison, table
from benchmarks.services import BenchmarkError, running_services
from schemas.errors import SettingsError

RESULTS = Path(__file__).parent / "results" / "latest.json"


async def measure(plan: Plan, say: Say) -> list[Comparison]:
    """Return all comparisons of ``plan``."""
    found: list[Comparison] = []
    say("starting Postgres and Kafka")
    async with running_services() as services:
        if plan.wants(*ingestion.ALL):
            found += await ingestion.measure(services, plan, say)
        if plan.wants(transport.TRANSPORT):
            found += await transport.measure(services, plan, say)
        if plan.wants(memory.GROWTH, recovery.RESTART):
            found += await memory.measure(services, plan, say)
        if plan.wants(crossings.CROSSING):
            found += await crossings.measure(services, plan, say)
        if plan.wants(recovery.FAILOVER):
            found += await recovery.measure_failover(services, plan, say)
        if plan.wants(prediction.RATE, prediction.P99):
            found += await prediction.measure(services, plan, say)
        if plan.wants(swaps.SWAPS):
            found += await swaps.measure(services, plan, say)
    return found


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return the options; invalid ones end the process with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure against peers, each ratio in one run."
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help=f"one of {', '.join(NAMES)}; may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one round: a smoke test, its figures mean little"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="sample the worker in one more run of ingestion, and print where its time goes, by module",
    )
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=RESULTS, help="file for the comparisons (default: %(default)s)"
    )
    options = parser.parse_args(given)
    try:
        options.plan = plan_for(only=tuple(options.only), quick=options.quick, profile=options.profile)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(given: Sequence[str]) -> int:
    """Measure; return 0, or 1 when a measurement failed."""
    options = arguments(given)
    configure_logs(process="bench", level="ERROR")
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", file=sys.stderr, flush=True)

    try:
        comparisons = asyncio.run(measure(options.plan, say))
    except (BenchmarkError, SettingsError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_bytes(msgspec.json.format(msgspec.json.encode(comparisons), indent=2) + b"\n")
    print(table(comparisons))
    print(f"written to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
