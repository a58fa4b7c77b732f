"""Proof that the harness can fail: the oracle finds each seeded fault in a run that is aimed at its effect.

``python -m tests.chaos.rig.seeded_faults`` seeds all of them. Each aimed run is also made without the fault: if that
control does not hold, finding the fault proves nothing.
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

from tests.chaos.oracle.invariants import NOT_EXERCISED, Verdict
from tests.chaos.oracle.recount import STREAMS_INVARIANTS
from tests.chaos.rig.aimed import Infrastructure, Run, embedded_infrastructure
from tests.chaos.rig.aimed_processes import Trap
from tests.chaos.rig.aimed_topics import remove_dead_members

INVARIANTS = (*STREAMS_INVARIANTS, "faults_hit", "caught_up")
Scenario = Callable[[Run], Awaitable[None]]


async def quiet(run: Run) -> None:
    """A worker is killed once in the middle, which every worker must survive."""
    worker = await run.start()
    await run.load.send(500)
    await run.panes(4)
    await worker.kill()
    run.record_fault("kill", worker, panes=4)
    await remove_dead_members(run.brokers, "streams")
    await run.load.send(400)
    await run.start()
    await run.catch_up()


def dies_at(point: str, *, hit: int) -> Scenario:
    """A worker dies at ``point`` and is started again."""

    async def dies(run: Run) -> None:
        worker = await run.start(trap=Trap(at=point, hit=hit))
        await run.load.send(600)
        await worker.died_at_the_trap()
        run.record_fault("crash", worker, point=point, passage=hit)
        await remove_dead_members(run.brokers, "streams")
        await run.load.send(300)
        await run.start()
        await run.catch_up()

    return dies


async def loses_a_delivery(run: Run) -> None:
    """A fetched batch never reaches the agent, as can happen in a rebalance."""
    worker = await run.start(trap=Trap(at="delivery:before", act="skip", hit=3))
    await run.load.send(400)
    await run.panes(4)
    await run.load.send(500)
    await run.catch_up()
    run.record_fault("lost delivery", worker, trace=run.trace.read_text())


async def wakes_as_a_zombie(run: Run) -> None:
    """A worker freezes with a batch in hand and another one takes over; the first wakes, and later takes over in turn."""
    armed = run.folder / "armed"
    first = await run.start(trap=Trap(at="batch:before", act="stop", when=armed))
    await run.load.send(400)
    await run.catch_up()
    armed.touch()
    await run.load.send(100)
    await first.stopped_at_the_trap()
    await remove_dead_members(run.brokers, "streams")  # the frozen one counts as dead
    second = await run.start()
    await run.load.send(300)
    await run.catch_up()
    first.resume()
    await run.refused(first)
    run.record_fault("freeze", first, refused=first.log_count("compare_lost"))
    await second.kill()
    run.record_fault("kill", second, panes=1)
    await remove_dead_members(run.brokers, "streams")
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
    run.record_fault("late commit", slow, trace=run.trace.read_text())


@dataclass(frozen=True, slots=True)
class SeededFault:
    """A fault, the run that is aimed at it, and the invariants of which one must break; any other finding is chance."""

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
SEEDED_FAULTS: tuple[SeededFault, ...] = (
    SeededFault("offset-before-work", "dies in a batch", ("archived_once", "deliveries_accounted")),
    SeededFault("no-compare-and-set", "wakes as a zombie", ("panes_contiguous", "counts_agree")),
    SeededFault("start-from-committed", "quiet", ("archived_once", "panes_contiguous")),
    SeededFault("no-contiguity-guard", "loses a delivery", ("archived_once",)),
    SeededFault("duplicates-counted", "quiet", ("counts_agree",)),
    SeededFault("cache-kept", "wakes as a zombie", ("states_replayed",)),
    SeededFault("pane-outside", "dies in a batch", ("panes_contiguous", "counts_agree")),
    SeededFault("relay-by-cursor", "commits late", ("outbox_published",)),
    SeededFault("marked-first", "dies before it publishes", ("outbox_published",)),
    SeededFault("cursor-outside", "dies in an epoch", ("epochs_whole",)),
)

_EXPECTED = {fault.name: fault.breaks for fault in SEEDED_FAULTS}
MOST_RUNS = 2  # within which a fault must be found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of an aimed run: the invariants that broke."""

    scenario: str
    fault: str | None
    runs: int
    broken: dict[str, Verdict]
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether the fault broke one of its invariants, or the control held."""
        return is_found(self.broken, self.fault) if self.fault else not self.broken

    def __str__(self) -> str:
        """One line of the table."""
        names = ", ".join(self.broken) or "every invariant held"
        name = self.fault or "(control)"
        state = "ok" if self.is_right else "WRONG"
        return f"{state:5} {name:20} {self.scenario:25} {self.runs} run(s) {self.seconds:5.1f} s  {names}"


def is_found(broken: Mapping[str, Verdict], fault: str) -> bool:
    """Return whether ``broken`` has an invariant that ``fault`` breaks, and not for lack of something to judge."""
    expected = _EXPECTED[fault]
    return any(name in expected and not verdict.detail.startswith(NOT_EXERCISED) for name, verdict in broken.items())


async def aimed_run(
    infrastructure: Infrastructure, folder: Path, scenario: str, *, fault: str | None, seed: int
) -> dict[str, Verdict]:
    """Make one run and return the invariants that broke."""
    async with infrastructure.run(folder, seed=seed, seeded_fault=fault) as run:
        await SCENARIOS[scenario](run)
        verdicts = await run.end(INVARIANTS)
    return {name: verdict for name, verdict in verdicts.items() if not verdict.holds}


async def look_for(
    infrastructure: Infrastructure, folder: Path, scenario: str, *, fault: str | None, seed: int = 1
) -> Finding:
    """Repeat the run until the fault is found, at most twice; a control runs once."""
    began, broken, runs = time.monotonic(), dict[str, Verdict](), 0
    while runs < (MOST_RUNS if fault else 1) and not (fault and is_found(broken, fault)):
        runs += 1
        name = f"{fault or 'control'}-{scenario.replace(' ', '-')}-{runs}"
        broken = await aimed_run(infrastructure, folder / name, scenario, fault=fault, seed=seed + runs)
    return Finding(scenario=scenario, fault=fault, runs=runs, broken=broken, seconds=time.monotonic() - began)


async def look_for_all(infrastructure: Infrastructure, folder: Path, faults: Sequence[SeededFault]) -> list[Finding]:
    """Look for ``faults``, each scenario's control first; print the findings as they come."""
    findings = []
    for scenario in dict.fromkeys(fault.scenario for fault in faults):
        for fault in (None, *(fault.name for fault in faults if fault.scenario == scenario)):
            findings.append(await look_for(infrastructure, folder, scenario, fault=fault))
            print(findings[-1], flush=True)
            for name, verdict in findings[-1].broken.items():
                print(f"      {name}: {verdict.detail[:300]}", flush=True)
    return findings


def main() -> int:
    """Seed the chosen faults; exit 1 if one was not found or a control did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rig.seeded_faults", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[fault.name for fault in SEEDED_FAULTS], help="only these faults")
    parser.add_argument(
        "--folder", type=Path, help="where runs are kept (default: a temporary one, removed at the end)"
    )
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # new topics change their leaders for a moment
    faults = [fault for fault in SEEDED_FAULTS if not given.only or fault.name in given.only]
    with tempfile.TemporaryDirectory(prefix="fincoach-seeded-") as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        with embedded_infrastructure(folder) as infrastructure:
            findings = asyncio.run(look_for_all(infrastructure, folder, faults))
    print("\n" + "\n".join(map(str, findings)))
    return 0 if all(finding.is_right for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
