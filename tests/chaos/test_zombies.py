"""A trap can stop a worker again and again with a batch in hand; each woken worker must have been refused."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos.faults.traps import BatchInHand, BatchTraps
from tests.chaos.oracle.faults import faults_hit
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.oracle.minimums import minimums
from tests.chaos.oracle.world import World
from tests.chaos.rig.aimed_processes import eventually
from tests.chaos.rig.launch import parser
from tests.chaos.rig.watch import LogTail

WORKER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.chaos.rig.launch import Trap
trap = Trap("stop", hit=1, seconds=0, when=Path(sys.argv[1]), trace=Path(sys.argv[2]), again=True)
for offset, _ in enumerate(sys.stdin):
    trap.passed(object(), SimpleNamespace(partition=3, from_offset=offset))
    print(offset, flush=True)
"""


async def test_a_worker_is_stopped_each_time_that_its_trap_is_armed(tmp_path: Path) -> None:
    """A worker stops once each time its trap is armed."""
    traps = BatchTraps(tmp_path)
    given = traps.launcher("streams-1", "streams")
    files = [given[given.index(name) + 1] for name in ("--when", "--trace")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, *files), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )

    def next_batch() -> None:
        assert process.stdin is not None
        process.stdin.write(b"\n")

    async def passed() -> int:
        assert process.stdout is not None
        return int(await process.stdout.readline())

    async def is_stopped() -> bool:
        return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)

    try:
        next_batch()
        assert await passed() == 0
        for offset in (1, 3):
            traps.arm("streams-1")
            next_batch()
            await eventually(is_stopped, what="the worker to stop")
            assert traps.stopped_batch("streams-1", process.pid) == BatchInHand(3, offset)
            process.send_signal(signal.SIGCONT)
            assert await passed() == offset
            next_batch()
            assert await passed() == offset + 1
        traps.arm("streams-1")
        traps.disarm("streams-1")
        next_batch()
        assert await passed() == 5
        assert traps.stopped_batch("streams-1", process.pid + 1) is None
    finally:
        process.kill()
        await process.wait()


def test_the_launcher_understands_how_a_trap_is_set(tmp_path: Path) -> None:
    """The launcher accepts the arguments of a batch trap."""
    module, *arguments = BatchTraps(tmp_path).launcher("streams-1", "streams")
    given = parser().parse_args(arguments)
    assert module == "tests.chaos.rig.launch"
    assert (given.at, given.act, given.again, given.service) == ("batch:before", "stop", True, "streams")


def judged(*evidence: dict[str, Any], **run: Any) -> Verdict:  # noqa: ANN401 - any value of run.json
    """Return the verdict on a run in which a worker was frozen for each ``evidence``."""
    timeline = [
        {"phase": "end", "kind": "freeze_in_batch", "target": "streams-1", "evidence": {"pid": 1, **one}}
        for one in evidence
    ]
    return faults_hit(World(run={"minimums": {"faults": 1, "refused zombies": 0}, **run}, timeline=timeline))


@pytest.mark.parametrize(("refused_by", "holds"), [("ledger", True), ("database", True), ("", False), (None, False)])
def test_every_zombie_with_a_batch_must_be_refused(refused_by: str | None, *, holds: bool) -> None:
    """Every woken worker with a batch in hand must have been refused."""
    good = {"batch": [0, 7], "refused_by": "ledger"}
    verdict = judged(good, {"batch": [1, 9], "refused_by": refused_by}, zombies_refused=5)
    assert verdict.holds is holds, verdict
    assert holds or "woke with the batch [1, 9] in hand" in verdict.detail


def test_a_storm_shows_several_refused_zombies() -> None:
    """A whole run must show several refused zombies."""
    one = {"batch": [0, 7], "refused_by": "database"}
    assert not judged(one, zombies_refused=3, minimums={"faults": 1, "refused zombies": 4}).holds
    assert judged(one, zombies_refused=4, minimums={"faults": 1, "refused zombies": 4}).holds


@pytest.mark.parametrize(("planned", "holds"), [(3, True), (4, False)])
def test_a_kind_that_was_planned_often_and_never_proven_is_missed(planned: int, *, holds: bool) -> None:
    """A kind of fault that was planned often must have been proven."""
    verdict = judged({}, zombies_refused=0, planned={"freeze_in_batch": 1, "disk_full": planned})
    assert verdict.holds is holds, verdict


def test_longer_runs_must_show_more() -> None:
    """Longer runs need more of everything."""
    whole, minute = (minimums(seconds=seconds, has_all_faults=True) for seconds in (900, 60))
    assert all(whole[name] >= number for name, number in minute.items())
    assert (whole["refused zombies"], minute["refused zombies"]) == (4, 0)
    assert whole["events"] == 90_000
    assert minimums(seconds=900, has_all_faults=False)["refused zombies"] == 0


def test_the_log_is_read_entry_by_entry(tmp_path: Path) -> None:
    """Only log entries of the given name are returned, not lines that contain it."""
    log = tmp_path / "worker.log"
    log.write_text("")
    tail = LogTail(log)
    log.write_text(
        'Traceback: compare_lost\n{"event": "x", "error": "compare_lost"}\n{"event": "compare_lost", "partition": 2}\n'
    )
    assert tail.events("compare_lost") == [{"event": "compare_lost", "partition": 2}]
