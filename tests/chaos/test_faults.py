"""Faults on a real process: a fault that took effect is proven, any other is not."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.clock import SystemClock
from stack.processes import ProcessSpec, RestartPolicy
from stack.supervisor import Supervisor
from tests.chaos.faults import freezes
from tests.chaos.faults.fake_clocks import FakeClocks
from tests.chaos.faults.fault import Fault, FaultContext, UnprovenError
from tests.chaos.faults.plan import PlannedFault
from tests.chaos.faults.proxy import FaultProxy
from tests.chaos.faults.register import FAULTS
from tests.chaos.faults.timeline import Timeline
from tests.chaos.faults.traps import BatchTraps
from tests.chaos.rig.aimed_processes import eventually
from tests.chaos.rig.fleet import ProducerFleet
from tests.chaos.rig.leadership import Leadership
from tests.chaos.rig.watch import Watch

pytestmark = pytest.mark.prove  # they measure time, with nobody beside them
WORKS = "import time\nwhile True: sum(range(20_000)); time.sleep(0.01)"
RESTS = "import time\ntime.sleep(3600)"


async def _is_ready() -> bool:
    return True


@asynccontextmanager
async def context(folder: Path, *, script: str = WORKS) -> AsyncIterator[FaultContext]:
    """Yield a supervised process ``worker`` with a watch on it."""
    spec = ProcessSpec(name="worker", command=(sys.executable, "-c", script), ready=_is_ready)
    policy = RestartPolicy(deaths=100, first_delay_seconds=0.05)
    async with Supervisor([spec], folder, policy=policy) as supervisor:
        await supervisor.start()
        watch = Watch(supervisor.states, database_url="postgresql://nobody@127.0.0.1:1/none", worker_urls={})
        watching = asyncio.create_task(watch.run())
        made = FaultContext(
            urls={}, supervisor=supervisor, watch=watch, leadership=Leadership("127.0.0.1:1"), clocks=FakeClocks(folder / "clocks"), traps=BatchTraps(folder / "traps"),
            fleet=ProducerFleet([], folder=folder), proxies={}, disks={}, logs=folder / "logs", clock=SystemClock(),
            generator=np.random.default_rng(0),
        )  # fmt: skip
        try:
            yield made
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def fault(kind: str, place: FaultContext, *, target: str = "worker", size: float = 0.0) -> Fault:
    """Return a fault that is about to be injected."""
    planned = PlannedFault(number=1, kind=kind, target=target, at_seconds=0.0, seconds=0.0, size=size)
    return FAULTS[kind](planned, place)


async def until_at_work(one: Fault) -> dict[str, Any]:
    """Return the evidence that the target works, as soon as there is some."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await one.before()
            except UnprovenError:
                await asyncio.sleep(0.05)


async def rests(place: FaultContext) -> bool:
    """Return whether the worker is rejected as a target because it does nothing."""
    try:
        await fault("kill", place).before()
    except UnprovenError as error:
        return "not at work" in str(error)
    return False


async def test_a_kill_is_proven_by_the_dead_and_the_one_after(tmp_path: Path) -> None:
    """A kill is proven by the dead process and its replacement."""
    async with context(tmp_path) as place:
        one = fault("kill", place)
        before = await until_at_work(one)
        await one.inject()
        await one.heal()
        evidence = await one.proof()
        assert evidence["killed_pid"] == before["pid"] != evidence["pid"]
        assert place.state("worker").restarts == 1


async def test_a_process_that_rests_is_no_target(tmp_path: Path) -> None:
    """A process that does nothing is not a target."""
    async with context(tmp_path, script=RESTS) as place:
        await asyncio.sleep(1.5)  # three looks of the watch
        # On a busy machine it takes longer to start.
        await eventually(lambda: rests(place), what="the process to rest", seconds=20)


@pytest.mark.parametrize(("session_seconds", "is_proven"), [(0.3, True), (30.0, False)])
async def test_a_freeze_counts_only_beyond_session_and_lease(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    session_seconds: float,
    is_proven: bool,  # noqa: FBT001 - a case
) -> None:
    """A freeze counts only if it outlasts session timeout and lease."""
    monkeypatch.setattr(freezes, "SESSION_SECONDS", session_seconds)
    monkeypatch.setattr(freezes, "LEASE_SECONDS", session_seconds)
    async with context(tmp_path) as place:
        one = fault("freeze", place)
        before = await until_at_work(one)
        await one.inject()
        began = time.monotonic()
        await asyncio.sleep(0.5)
        await one.heal()
        if not is_proven:
            with pytest.raises(UnprovenError, match="was frozen for 0"):
                await one.proof()
            return
        evidence = await one.proof()
        assert evidence["pid"] == before["pid"] == place.state("worker").pid
        assert 0.5 <= evidence["frozen_seconds"] <= time.monotonic() - began + 0.5


async def test_a_connection_without_traffic_is_no_target(tmp_path: Path) -> None:
    """A connection without traffic is not a target."""
    async with context(tmp_path) as place:
        place.proxies["worker", "postgres"] = FaultProxy(1, 2)
        one = fault("slow_connection", place, target="worker>postgres", size=0.1)
        with pytest.raises(UnprovenError, match="nothing has passed"):
            await one.before()
        await one.inject()
        await one.heal()
        with pytest.raises(UnprovenError, match="nothing was to pass"):
            await one.proof()
        assert place.proxies["worker", "postgres"].delay_seconds == 0.0


def test_only_proven_faults_are_counted(tmp_path: Path) -> None:
    """Only proven faults are counted."""
    timeline = Timeline(tmp_path / "timeline.jsonl", SystemClock())
    first, second = (
        PlannedFault(number=number, kind="kill", target="worker", at_seconds=0.0, seconds=0.0) for number in (1, 2)
    )
    timeline.begin(first, {"pid": 1})
    timeline.end(first, {"gone": True})
    timeline.begin(second, {"pid": 2})
    timeline.unproven_end(second, "it did not die")
    assert (dict(timeline.proven), dict(timeline.unproven)) == ({"kill": 1}, {"kill": 1})
    lines = (tmp_path / "timeline.jsonl").read_text().splitlines()
    assert ['"phase":"begin"' in lines[0], '"phase":"end"' in lines[1], '"phase":"unproven"' in lines[3]] == [True] * 3
