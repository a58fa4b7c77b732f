"""The sweep of crash points: a process dies just before or just after each of its writes, and nothing is lost or done twice.

``python -m tests.chaos.rig.crash_points`` sweeps all of them; results are kept, line by line, so that ``--resume`` goes on
where a sweep was ended. Services stay up between the points, only the process concerned is started again.
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

from tests.chaos.rig.aimed import Yard, standing_yard
from tests.chaos.rig.aimed_processes import Trap, YardError
from tests.chaos.rig.crash_scenarios import SCENARIOS
from tests.chaos.rig.seams import SEAMS

REPEATS = 3
RESULTS = "crash-points.jsonl"


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A moment at which a process of ``room`` dies."""

    room: str
    seam: str
    moment: str
    passages: int

    @property
    def name(self) -> str:
        """What it is called on the command line and in results."""
        return f"{self.room}: {self.seam}:{self.moment}"

    def trap(self, repeat: int) -> Trap:
        """Return the trap of repetition ``repeat`` (from 0): another passage each time, where there are several."""
        return Trap(at=f"{self.seam}:{self.moment}", hit=1 + (2 * repeat) % self.passages)


def crash_points() -> list[CrashPoint]:
    """Return all of them, room by room."""
    points = [
        CrashPoint(room, seam.name, moment, seam.passages)
        for seam in SEAMS
        for room in seam.rooms
        for moment in ("before", "after")
    ]
    return sorted(points, key=lambda point: list(SCENARIOS).index(point.room))


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one death: the laws that did not hold, with what they say."""

    point: str
    repeat: int
    ok: bool
    seconds: float
    broken: dict[str, str]


async def strike(yard: Yard, folder: Path, point: CrashPoint, *, repeat: int) -> Result:
    """Let the process die at ``point``, start it again, and judge."""
    began = time.monotonic()
    scenario = SCENARIOS[point.room]
    broken: dict[str, str] = {}
    try:
        async with yard.run(folder, seed=1 + repeat) as run:
            await scenario.play(run, point.seam, point.trap(repeat))
            laws = await run.end(scenario.laws)
        broken = {name: law.detail for name, law in laws.items() if not law.holds}
    except YardError as error:
        broken = {"the run itself": str(error)}
    return Result(
        point=point.name, repeat=repeat, ok=not broken, seconds=round(time.monotonic() - began, 1), broken=broken
    )


def folder_of(below: Path, point: CrashPoint, repeat: int) -> Path:
    """Return where a run is kept."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in point.name)
    return below / f"{plain}-{repeat}-{time.strftime('%H%M%S')}"


async def sweep(yard: Yard, folder: Path, points: Sequence[tuple[CrashPoint, int]]) -> Iterable[Result]:
    """Strike at each of ``points`` (with the number of its repetition), keeping and printing results as they come."""
    began, results = time.monotonic(), []
    for number, (point, repeat) in enumerate(points, start=1):
        place = folder_of(folder, point, repeat)
        result = await strike(yard, place, point, repeat=repeat)
        results.append(result)
        with (folder / RESULTS).open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")
        left = (time.monotonic() - began) / number * (len(points) - number)
        state = "ok" if result.ok else "BROKEN"
        print(f"{number:4}/{len(points)} {state:6} {point.name} #{repeat + 1} {result.seconds:.1f} s, {left / 60:.0f} min left", flush=True)  # fmt: skip
        for name, detail in result.broken.items():
            print(f"            {name}: {detail[:300]}\n            kept in {place}", flush=True)
    return results


def done_before(folder: Path) -> set[tuple[str, int]]:
    """Return what an earlier sweep in ``folder`` has shown to hold."""
    file = folder / RESULTS
    lines = file.read_bytes().splitlines() if file.exists() else []
    results = [msgspec.json.decode(line, type=Result) for line in lines]
    return {(result.point, result.repeat) for result in results if result.ok}


def share_of(points: Sequence[CrashPoint], *, size: int) -> list[CrashPoint]:
    """Return ``size`` points, always the same ones, spread evenly over all."""
    return [points[number * len(points) // size] for number in range(min(size, len(points)))]


def main() -> int:
    """Sweep; exit 1 where a law did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rig.crash_points", description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="points whose name holds one of these")
    parser.add_argument(
        "--repeat", type=int, default=REPEATS, help=f"times that each point is tried (default: {REPEATS})"
    )
    parser.add_argument("--resume", action="store_true", help="leave out what held in the folder's earlier sweep")
    parser.add_argument("--list", action="store_true", help="name the points and do nothing")
    parser.add_argument("--folder", type=Path, help="where runs and results are kept (default: .fincoach/crash-points)", default=Path(".fincoach/crash-points"))  # fmt: skip
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # topics that have just been made move for a moment
    chosen = [point for point in crash_points() if not given.only or any(text in point.name for text in given.only)]
    if given.list:
        print("\n".join(point.name for point in chosen))
        return 0
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    known = done_before(folder) if given.resume else set()
    todo = [(point, repeat) for repeat in range(given.repeat) for point in chosen if (point.name, repeat) not in known]
    print(f"{len(chosen)} points, {len(todo)} deaths to die; results in {folder / RESULTS}", flush=True)
    with _services() as yard:
        results = list(asyncio.run(_swept(yard, folder, todo)))
    broken = [result for result in results if not result.ok]
    print(f"{len(results) - len(broken)} of {len(results)} deaths left every law whole")
    return 1 if broken else 0


async def _swept(yard: Yard, folder: Path, todo: Sequence[tuple[CrashPoint, int]]) -> Iterable[Result]:
    return await sweep(yard, folder, todo)


@contextlib.contextmanager
def _services() -> Iterator[Yard]:
    with tempfile.TemporaryDirectory(prefix="fincoach-yard-") as temporary, standing_yard(Path(temporary)) as yard:
        yield yard


if __name__ == "__main__":
    sys.exit(main())
