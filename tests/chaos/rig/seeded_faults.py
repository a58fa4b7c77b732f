"""The proof that the harness can fail: each planted bug is found by the oracle in a run aimed at where it hurts.

``python -m tests.chaos.rig.seeded_faults`` plants all of them. Each aimed run is made without the bug too: where that
control does not hold, finding the bug proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.oracle.invariants import NOT_SHOWN, Law
from tests.chaos.oracle.recount import STREAMS_LAWS
from tests.chaos.rig.aimed import Run, Yard, standing_yard
from tests.chaos.rig.aimed_processes import Trap
from tests.chaos.rig.aimed_topics import forget_the_dead

LAWS = (*STREAMS_LAWS, "faults_hit", "caught_up")
Scenario = Callable[[Run], Awaitable[None]]


async def quiet(run: Run) -> None:
    """A worker that is killed once in the middle: what every worker must stand."""
    worker = await run.start()
    await run.load.send(500)
    await run.panes(4)
    await worker.kill()
    run.hit("kill", worker, panes=4)
    await forget_the_dead(run.brokers, "streams")
    await run.load.send(400)
    await run.start()
    await run.catch_up()


def dies_at(point: str, *, hit: int) -> Scenario:
    """A worker that dies at ``point`` and is started again."""

    async def dies(run: Run) -> None:
        worker = await run.start(trap=Trap(at=point, hit=hit))
        await run.load.send(600)
        await worker.died_at_the_trap()
        run.hit("crash", worker, point=point, passage=hit)
        await forget_the_dead(run.brokers, "streams")
        await run.load.send(300)
        await run.start()
        await run.catch_up()

    return dies


async def loses_a_delivery(run: Run) -> None:
    """A fetched batch never arrives at the agent, as happens in a rebalance."""
    worker = await run.start(trap=Trap(at="delivery:before", act="skip", hit=3))
    await run.load.send(400)
    await run.panes(4)
    await run.load.send(500)
    await run.catch_up()
    run.hit("lost delivery", worker, sprung=run.trace.read_text())


async def wakes_as_a_zombie(run: Run) -> None:
    """A worker freezes with a batch in hand, another one takes over, the first wakes, and then has to take over itself."""
    armed = run.folder / "armed"
    first = await run.start(trap=Trap(at="batch:before", act="stop", when=armed))
    await run.load.send(400)
    await run.catch_up()
    armed.touch()
    await run.load.send(100)
    await first.stopped_at_the_trap()
    await forget_the_dead(run.brokers, "streams")  # the frozen one counts as dead
    second = await run.start()
    await run.load.send(300)
    await run.catch_up()
    first.go_on()
    await run.refused(first)
    run.hit("freeze", first, refused=first.said("compare_lost"))
    await second.kill()
    run.hit("kill", second, panes=1)
    await forget_the_dead(run.brokers, "streams")
    await run.load.send(300)
    await run.catch_up()


async def commits_late(run: Run) -> None:
    """A transaction of one worker stays open while another worker commits and publishes."""
    slow = await run.start(trap=Trap(at="commit of a batch:before", act="delay", hit=3, seconds=1.5))
    other = await run.start()
    await slow.ready()
    await other.ready()
    for _ in range(6):
        await run.load.send(150)
    await run.catch_up()
    run.hit("late commit", slow, sprung=run.trace.read_text())


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A bug, the run that is aimed at it, and the laws of which one must show what it does: any other finding is chance."""

    name: str
    scenario: str
    breaks: tuple[str, ...]


SCENARIOS: dict[str, Scenario] = {
    "quiet": quiet,
    "dies in a batch": dies_at("commit of a batch:before", hit=4),
    "dies before it publishes": dies_at("BrokerProducer.publish_batch:before", hit=4),
    "dies in an epoch": dies_at("commit of an epoch:before", hit=2),
    "loses a delivery": loses_a_delivery,
    "wakes as a zombie": wakes_as_a_zombie,
    "commits late": commits_late,
}
PLANTED: tuple[PlantedBug, ...] = (
    PlantedBug("offset-before-work", "dies in a batch", ("archived_once", "deliveries_accounted")),
    PlantedBug("no-compare-and-set", "wakes as a zombie", ("panes_join", "counts_agree")),
    PlantedBug("start-from-committed", "quiet", ("archived_once", "panes_join")),
    PlantedBug("no-contiguity-guard", "loses a delivery", ("archived_once",)),
    PlantedBug("duplicates-counted", "quiet", ("counts_agree",)),
    PlantedBug("cache-kept", "wakes as a zombie", ("states_replayed",)),
    PlantedBug("pane-outside", "dies in a batch", ("panes_join", "counts_agree")),
    PlantedBug("relay-by-cursor", "commits late", ("outbox_heard",)),
    PlantedBug("marked-first", "dies before it publishes", ("outbox_heard",)),
    PlantedBug("cursor-outside", "dies in an epoch", ("epochs_whole",)),
)

_EXPECTED = {bug.name: bug.breaks for bug in PLANTED}
MOST_RUNS = 2  # in which a bug must be found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one aimed run: the laws that it broke."""

    scenario: str
    plant: str | None
    runs: int
    broken: dict[str, Law]
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether a bug was found by a law that it breaks, or a control held."""
        return shows(self.broken, self.plant) if self.plant else not self.broken

    def __str__(self) -> str:
        """One line of the table."""
        names = ", ".join(self.broken) or "every law held"
        name = self.plant or "(control)"
        state = "ok" if self.is_right else "WRONG"
        return f"{state:5} {name:20} {self.scenario:25} {self.runs} run(s) {self.seconds:5.1f} s  {names}"


def shows(broken: Mapping[str, Law], plant: str) -> bool:
    """Return whether ``broken`` holds a law that the bug ``plant`` breaks, and not for want of something to judge."""
    expected = _EXPECTED[plant]
    return any(name in expected and not law.detail.startswith(NOT_SHOWN) for name, law in broken.items())


async def aimed_run(yard: Yard, folder: Path, scenario: str, *, plant: str | None, seed: int) -> dict[str, Law]:
    """Make one run and return the laws that it broke."""
    async with yard.run(folder, seed=seed, plant=plant) as run:
        await SCENARIOS[scenario](run)
        laws = await run.end(LAWS)
    return {name: law for name, law in laws.items() if not law.holds}


async def look_for(yard: Yard, folder: Path, scenario: str, *, plant: str | None, seed: int = 1) -> Finding:
    """Make runs until the bug is found, at most two; a control is one run."""
    began, broken, runs = time.monotonic(), dict[str, Law](), 0
    while runs < (MOST_RUNS if plant else 1) and not (plant and shows(broken, plant)):
        runs += 1
        name = f"{plant or 'control'}-{scenario.replace(' ', '-')}-{runs}"
        broken = await aimed_run(yard, folder / name, scenario, plant=plant, seed=seed + runs)
    return Finding(scenario=scenario, plant=plant, runs=runs, broken=broken, seconds=time.monotonic() - began)


async def look_for_all(yard: Yard, folder: Path, bugs: Sequence[PlantedBug]) -> list[Finding]:
    """Look for ``bugs``, each scenario's control first; prints as it goes."""
    findings = []
    for scenario in dict.fromkeys(bug.scenario for bug in bugs):
        for plant in (None, *(bug.name for bug in bugs if bug.scenario == scenario)):
            findings.append(await look_for(yard, folder, scenario, plant=plant))
            print(findings[-1], flush=True)
            for name, law in findings[-1].broken.items():
                print(f"      {name}: {law.detail[:300]}", flush=True)
    return findings


def main() -> int:
    """Plant what is asked for; exit 1 where a bug was not found or a control did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rig.seeded_faults", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[bug.name for bug in PLANTED], help="these bugs alone")
    parser.add_argument(
        "--folder", type=Path, help="where runs are kept (default: a temporary one, removed at the end)"
    )
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # topics that have just been made move for a moment
    bugs = [bug for bug in PLANTED if not given.only or bug.name in given.only]
    with tempfile.TemporaryDirectory(prefix="fincoach-planted-") as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        with standing_yard(folder) as yard:
            findings = asyncio.run(look_for_all(yard, folder, bugs))
    print("\n" + "\n".join(map(str, findings)))
    return 0 if all(finding.is_right for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
