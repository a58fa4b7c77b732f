"""One chaos run: start, load and faults, heal, catch up, judge."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from admin.gateway import CommandGateway
from backends.clock import SystemClock
from schemas.errors import FinCoachError
from schemas.messages.control import UpdateThresholds
from schemas.vocabulary import Service
from stack.processes import Phase
from tests.chaos.faults.fault import Fault, UnprovenError
from tests.chaos.faults.plan import PlannedFault, planned
from tests.chaos.faults.register import FAULTS
from tests.chaos.faults.timeline import Timeline
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.oracle.minimums import minimums
from tests.chaos.rig.catching_up import CaughtUp, caught_up, trained
from tests.chaos.rig.cluster import Cluster, clocks_can_be_moved, rules, running_cluster
from tests.chaos.rig.fleet import ProducerFleet, orders
from tests.chaos.rig.load import PredictionLoad, Swaps
from tests.chaos.rig.report import ChaosReport, count_events, own_exits
from tests.chaos.rig.settings import ChaosSettings

Say = Callable[[str], None]
UNTIL_AT_WORK_SECONDS = 15.0
HEAL_SECONDS = 90.0
LONGEST_CATCH_UP_SECONDS = 120.0
LONGEST_TRAINING_SECONDS = 240.0
COUNT_ALONE = """
UPDATE thresholds SET updated_by = 'test', adaptive = false, quality_gate = 0, cool_down_seconds = 0, max_age_seconds = NULL, user_share = 0.5
"""
Judge = Callable[..., Awaitable[dict[str, Verdict]]]


class InterruptedRunError(FinCoachError):
    """The run was stopped from outside."""


class ChaosRun:
    """One chaos run in its folder."""

    def __init__(self, settings: ChaosSettings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._clock = SystemClock()
        self._timeline = Timeline(settings.folder / "timeline.jsonl", self._clock)
        self._claims: dict[str, asyncio.Lock] = {}
        self._last_fault_at: dict[str, float] = {}  # when each process was last under a fault (monotonic)
        self._under: set[str] = set()

    async def run(self, judge: Judge | None) -> ChaosReport:
        """Run everything and return the report."""
        settings = self._settings
        settings.folder.mkdir(parents=True, exist_ok=True)
        clocks = clocks_can_be_moved(self._say)
        async with running_cluster(settings, self._say) as cluster:
            await self._set_thresholds(cluster)
            kinds = rules(settings, disk=bool(cluster.context.disks), clocks=clocks)
            faults = planned(
                settings.seed,
                seconds=settings.seconds,
                every_seconds=settings.fault_every_seconds,
                rules=kinds,
                only=settings.only,
            )
            self._say(f"{len(faults)} faults are planned for {settings.seconds:g} s of load")
            started_at = self._clock.now().timestamp()
            async with self._load(cluster) as (predictions, swaps):
                await self._carry_out(faults, cluster)
                faults_ended = time.monotonic()
            load_ended_at = self._clock.now().timestamp()
            healed = await self._heal(cluster)
            self._say("all processes are healed and the producers are done; waiting until everything has caught up")
            done = await caught_up(
                cluster.brokers,
                cluster.context.watch,
                wide_partitions=settings.wide_partitions,
                since=faults_ended,
                within_seconds=LONGEST_CATCH_UP_SECONDS,
            )
            self._write_run(cluster, faults, started_at=started_at, load_ended_at=load_ended_at, done=done)
            self._say("waiting until everything is trained")
            ended = await trained(cluster.context.watch, within_seconds=LONGEST_TRAINING_SECONDS)
            verdicts = self._own_verdicts(done, healed, predictions)
            verdicts["trained"] = Verdict(
                holds=ended.seconds is not None, detail=f"after {ended.seconds} s {ended.behind or ''}".strip()
            )
            if judge is not None:
                self._say("judging")
                found = await judge(settings.folder, brokers=cluster.brokers, database_url=cluster.system.database_url)
                verdicts |= found
            report = ChaosReport(
                seed=settings.seed, seconds=settings.seconds, faults=dict(sorted(self._timeline.proven.items())),
                unproven=dict(sorted(self._timeline.unproven.items())), invariants=verdicts,
                events=count_events(settings.folder / "producers"),
                predictions={"answered": predictions.answered, "excused": predictions.excused, "failed": len(predictions.failures),
                             "slowest_seconds": round(predictions.slowest_seconds, 2)},
                swaps=dict(swaps.outcomes), own_exits=own_exits(settings.folder / "stack" / "logs" / "supervisor.log"), caught_up_seconds=done.seconds,
                ok=judge is not None and all(verdict.holds for verdict in verdicts.values()),
            )  # fmt: skip
            for disk in cluster.context.disks.values():
                disk.keeps = settings.keep or not report.ok
            return report
        # After a signal the supervisor ends its block without an error.
        raise InterruptedRunError("it was stopped by a signal")

    async def _set_thresholds(self, cluster: Cluster) -> None:
        """Let epochs close often and by count alone, the only rule that the oracle knows; by command, as an operator would."""
        gateway = CommandGateway(cluster.brokers, issuer="chaos", clock=self._clock)
        await gateway.start(timeout_seconds=30.0)
        try:
            for model, threshold in self._settings.thresholds.items():
                command = gateway.command(UpdateThresholds, model, threshold=threshold, cool_down_seconds=0)
                await gateway.execute(command, timeout_seconds=30.0)
        finally:
            await gateway.stop()
        await cluster.context.watch.rows(COUNT_ALONE)

    @asynccontextmanager
    async def _load(self, cluster: Cluster) -> AsyncIterator[tuple[PredictionLoad, Swaps]]:
        """Run producers, predictions, swaps and the watch; when the block ends, the producers deliver what they have."""
        settings, context = self._settings, cluster.context
        context.fleet = self._fleet(cluster)
        replicas = {
            endpoint.name: endpoint.url for endpoint in cluster.system.planned if endpoint.service == Service.SERVING
        }
        predictions = PredictionLoad(
            replicas, self._excuse(cluster), per_second=settings.predictions_per_second, seed=settings.seed
        )
        swaps = Swaps(cluster.brokers, context.watch, seed=settings.seed, every_seconds=settings.swap_every_seconds)
        async with AsyncExitStack() as stack:
            stack.callback(context.fleet.kill_all)
            watching = asyncio.create_task(context.watch.run())
            stack.push_async_callback(_ended, watching)
            tasks = [asyncio.create_task(predictions.run()), asyncio.create_task(swaps.run())]
            await context.fleet.start()
            try:
                yield predictions, swaps
            finally:
                await asyncio.gather(*map(_ended, tasks))
            for name in await context.fleet.stop():
                self._timeline.note("producer_failed", producer=name)
                self._say(f"{name} did not end cleanly; its log is beside its journal")

    def _fleet(self, cluster: Cluster) -> ProducerFleet:
        settings, folder = self._settings, self._settings.folder / "producers"
        found = orders(
            brokers=cluster.brokers, folder=folder, seed=settings.seed, producers=settings.producers, users=settings.users,
            events_per_second=settings.events_per_second, wall_time=self._clock.now().timestamp(), seconds=settings.seconds,
            days_per_second=settings.days_per_second,
        )  # fmt: skip
        return ProducerFleet(found, folder=folder)

    async def _carry_out(self, faults: tuple[PlannedFault, ...], cluster: Cluster) -> None:
        """Inject each fault at its time; return when the time is over and the last fault has healed."""
        began = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at_seconds - time.monotonic()))
            running.add(asyncio.create_task(self._one(fault, cluster, began)))
        await asyncio.sleep(max(0.0, began + self._settings.seconds - time.monotonic()))
        if running:
            await asyncio.gather(*running)

    async def _one(self, planned_fault: PlannedFault, cluster: Cluster, began: float) -> None:
        """Carry out one fault, after waiting for the faults that hold its claims."""
        async with AsyncExitStack() as stack:
            for claim in sorted(planned_fault.claims):
                await stack.enter_async_context(self._claims.setdefault(claim, asyncio.Lock()))
            if time.monotonic() - began + planned_fault.seconds > self._settings.seconds:
                self._timeline.unproven_end(planned_fault, "no time was left")
                return
            await self._inject(FAULTS[planned_fault.kind](planned_fault, cluster.context), planned_fault)

    async def _inject(self, fault: Fault, planned_fault: PlannedFault) -> None:
        name = f"{planned_fault.kind} of {planned_fault.target}"
        try:
            self._timeline.begin(planned_fault, await _at_work(fault))
            self._say(
                f"{planned_fault.number:3d} {name}"
                + (f" for {planned_fault.seconds:.0f} s" if planned_fault.seconds else "")
            )
            with self._under_fault(planned_fault):
                try:
                    await fault.inject()
                    await asyncio.sleep(planned_fault.seconds)
                finally:
                    await fault.heal()
                evidence = await fault.proof()
            self._timeline.end(planned_fault, evidence)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one fault: it does not count, and the run continues
            self._timeline.unproven_end(planned_fault, str(error) if isinstance(error, UnprovenError) else repr(error))
            self._say(f"{planned_fault.number:3d} {name} does not count: {error}")

    @contextlib.contextmanager
    def _under_fault(self, fault: PlannedFault) -> Iterator[None]:
        """Note which process cannot answer meanwhile: a killed or frozen one. Under any other fault a replica must answer."""
        away = {fault.target} if fault.kind in {"kill", "freeze"} else set()
        self._under |= away
        try:
            yield
        finally:
            self._under -= away
            self._last_fault_at |= dict.fromkeys(away, time.monotonic())

    def _excuse(self, cluster: Cluster) -> Callable[[str, float], bool]:
        def excused(name: str, since: float) -> bool:
            state = cluster.context.state(name)
            return name in self._under or self._last_fault_at.get(name, float("-inf")) > since or state.pid is None

        return excused

    async def _heal(self, cluster: Cluster) -> float | None:
        """Wait until every process is ready again; return how many seconds that took, or None if it did not happen."""
        began = time.monotonic()
        wanted = [state.name for state in cluster.system.supervisor.states() if state.name != "streams-3"]
        while time.monotonic() - began < HEAL_SECONDS:
            if all(cluster.context.state(name).phase is Phase.READY for name in wanted):
                return round(time.monotonic() - began, 1)
            await asyncio.sleep(0.1)
        return None

    def _own_verdicts(self, done: CaughtUp, healed: float | None, predictions: PredictionLoad) -> dict[str, Verdict]:
        limit = self._settings.catch_up_seconds
        total = sum(self._timeline.proven.values())
        fewest = int(self._settings.seconds / 9.0) if not self._settings.only else 1
        return {
            "healed": Verdict(holds=healed is not None, detail=f"all processes ready {healed} s after the last fault"),
            "caught_up": Verdict(
                holds=done.seconds is not None and done.seconds <= limit,
                detail=f"{done.seconds} s after the last fault, with what the producers had in flight (at most {limit:g} s)"
                if done.seconds is not None
                else f"behind: {done.behind}",
            ),
            "no_failed_prediction": Verdict(
                holds=not predictions.failures and predictions.answered >= self._settings.seconds,
                detail=f"{len(predictions.failures)} of {predictions.answered} failed {predictions.failures[:3]}",
            ),
            "enough_faults": Verdict(
                holds=total >= fewest,
                detail=f"{total} proven, at least {fewest} wanted; not proven: {dict(self._timeline.unproven)}",
            ),
        }

    def _zombies_refused(self) -> int:
        """Return how many batches of woken workers the ledger refused because others had counted them."""
        return sum(int(one.get("lost_compares", 0)) for one in self._timeline.evidence)

    def _write_run(
        self,
        cluster: Cluster,
        faults: Sequence[PlannedFault],
        *,
        started_at: float,
        load_ended_at: float,
        done: CaughtUp,
    ) -> None:
        settings = self._settings
        facts = {
            "seed": settings.seed, "seconds": settings.seconds, "brokers": cluster.brokers,
            "database_url": cluster.system.database_url, "wide_partitions": settings.wide_partitions,
            "thresholds": {str(model): threshold for model, threshold in settings.thresholds.items()},
            "minimums": minimums(seconds=settings.seconds, has_all_faults=not settings.only),
            "planned": Counter(fault.kind for fault in faults),
            "replicas": [endpoint.name for endpoint in cluster.system.planned if endpoint.service == Service.SERVING],
            "zombies_refused": self._zombies_refused(), "started_at": started_at, "load_ended_at": load_ended_at, "caught_up_seconds": done.seconds,
            "settings": {
                "events_per_second": settings.events_per_second, "producers": settings.producers, "users": settings.users,
                "fault_every_seconds": settings.fault_every_seconds, "only": settings.only,
            },
        }  # fmt: skip
        (settings.folder / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(facts)))


async def _at_work(fault: Fault) -> dict[str, Any]:
    """Wait until the target works, and return the evidence.

    Raises:
        UnprovenError: it does not work within some seconds.
    """
    deadline = time.monotonic() + UNTIL_AT_WORK_SECONDS
    while True:
        try:
            return await fault.before()
        except UnprovenError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a background task; raise what it failed with."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
