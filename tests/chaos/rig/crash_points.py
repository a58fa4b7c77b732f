"""The sweep of crash points: a process dies just before or just after each of its writes; nothing may be lost or done twice.

``python -m tests.chaos.rig.crash_points`` sweeps all of them. Results are kept line by line, so ``--resume`` continues an
interrupted sweep. Broker and database stay up between the points; only the process concerned restarts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.chaos.rig.aimed import Infrastructure, embedded_infrastructure
from tests.chaos.rig.aimed_processes import AimedRunError, Trap
from tests.chaos.rig.crash_scenarios import SCENARIOS
from tests.chaos.rig.seams import SEAMS

REPEATS = 3
RESULTS = "crash-points.jsonl"


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A moment at which a process of ``service`` dies."""

    service: str
    seam: str
    moment: str
    passages: int

    @property
    def name(self) -> str:
        """Its name on the command line and in results."""
        return f"{self.service}: {self.seam}:{self.moment}"

    def trap(self, repeat: int) -> Trap:
        """Return the trap of repetition ``repeat`` (from 0): each repetition dies at a later passage if there are several."""
        return Trap(at=f"{self.seam}:{self.moment}", hit=1 + (2 * repeat) % self.passages)


def crash_points() -> list[CrashPoint]:
    """Return all crash points, service by service."""
    points = [
        CrashPoint(service, seam.name, moment, seam.passages)
        for seam in SEAMS
        for service in seam.services
        for moment in ("before", "after")
    ]
    return sorted(points, key=lambda point: list(SCENARIOS).index(point.service))


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one death: the invariants that did not hold, with their details."""

    point: str
    repeat: int
    ok: bool
    seconds: float
    broken: dict[str, str]


async def crash_at(infrastructure: Infrastructure, folder: Path, point: CrashPoint, *, repeat: int) -> Result:
    """Let the process die at ``point``, start it again, and judge the run."""
    began = time.monotonic()
    scenario = SCENARIOS[point.service]
    broken: dict[str, str] = {}
    try:
        async with infrastructure.run(folder, seed=1 + repeat) as run:
            await scenario.play(run, point.seam, point.trap(repeat))
            verdicts = await run.end(scenario.invariants)
        broken = {name: verdict.detail for name, verdict in verdicts.items() if not verdict.holds}
    except AimedRunError as error:
        broken = {"the run itself": str(error)}
    return Result(
        point=point.name, repeat=repeat, ok=not broken, seconds=round(time.monotonic() - began, 1), broken=broken
    )


def folder_of(below: Path, point: CrashPoint, repeat: int) -> Path:
    """Return the folder of a run."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in point.name)
    return below / f"{plain}-{repeat}-{time.strftime('%H%M%S')}"


async def sweep(
    infrastructure: Infrastructure, folder: Path, points: Sequence[tuple[CrashPoint, int]]
) -> Iterable[Result]:
    """Crash at each of ``points`` (given with its repetition); keep and print the results as they come."""
    began, results = time.monotonic(), []
    for number, (point, repeat) in enumerate(points, start=1):
        place = folder_of(folder, point, repeat)
        result = await crash_at(infrastructure, place, point, repeat=repeat)
        results.append(result)
        with (folder / RESULTS).open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")
        left = (time.monotonic() - began) / number * (len(points) - number)
        state = "ok" if result.ok else "BROKEN"
        print(f"{number:4}/{len(points)} {state:6} {point.name} #{repeat + 1} {result.seconds:.1f} s, {left / 60:.0f} min left", flush=True)  # fmt: skip
        for name, detail in result.broken.items():
            print(f"            {name}: {detail[:300]}\n            kept in {place}", flush=True)
    return results


def completed_points(folder: Path) -> set[tuple[str, int]]:
    """Return the points that held in an earlier sweep in ``folder``."""
    file = folder / RESULTS
    lines = file.read_bytes().splitlines() if file.exists() else []
    results = [msgspec.json.decode(line, type=Result) for line in lines]
    return {(result.point, result.repeat) for result in results if result.ok}


def share_of(points: Sequence[CrashPoint], *, size: int) -> list[CrashPoint]:
    """Return ``size`` points, always the same ones, spread evenly over all."""
    return [points[number * len(points) // size] for number in range(min(size, len(points)))]


def main() -> int:
    """Sweep; exit 1 if an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rig.crash_points", description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="points whose name contains one of these")
    parser.add_argument(
        "--repeat", type=int, default=REPEATS, help=f"how often each point is tried (default: {REPEATS})"
    )
    parser.add_argument("--resume", action="store_true", help="skip what held in the folder's earlier sweep")
    parser.add_argument("--list", action="store_true", help="list the points and exit")
    parser.add_argument("--folder", type=Path, help="where runs and results are kept (default: .fincoach/crash-points)", default=Path(".fincoach/crash-points"))  # fmt: skip
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # new topics change their leaders for a moment
    chosen = [point for point in crash_points() if not given.only or any(text in point.name for text in given.only)]
    if given.list:
        print("\n".join(point.name for point in chosen))
        return 0
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    known = completed_points(folder) if given.resume else set()
    todo = [(point, repeat) for repeat in range(given.repeat) for point in chosen if (point.name, repeat) not in known]
    print(f"{len(chosen)} points, {len(todo)} deaths; results in {folder / RESULTS}", flush=True)
    with _infrastructure() as infrastructure:
        results = list(asyncio.run(_swept(infrastructure, folder, todo)))
    broken = [result for result in results if not result.ok]
    print(f"every invariant held after {len(results) - len(broken)} of {len(results)} deaths")
    return 1 if broken else 0


async def _swept(
    infrastructure: Infrastructure, folder: Path, todo: Sequence[tuple[CrashPoint, int]]
) -> Iterable[Result]:
    return await sweep(infrastructure, folder, todo)


@contextlib.contextmanager
def _infrastructure() -> Iterator[Infrastructure]:
    with (
        tempfile.TemporaryDirectory(prefix="fincoach-crash-points-") as temporary,
        embedded_infrastructure(Path(temporary)) as infrastructure,
    ):
        yield infrastructure


if __name__ == "__main__":
    sys.exit(main())
