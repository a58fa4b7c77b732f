"""The real stack of a chaos run: three brokers, two workers and a spare, two trainers, a deployer, three replicas, and proxies."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from admin.installation import Endpoint, Installation
from backends.clock import SystemClock
from schemas.vocabulary import Service
from stack.processes import ProcessSpec, RestartPolicy
from stack.system import Say, System, SystemPlan
from tests.chaos.faults.disk import SmallDisk
from tests.chaos.faults.fake_clocks import FakeClocks, faketime_library
from tests.chaos.faults.fault import LEASE_SECONDS, SESSION_SECONDS, FaultContext
from tests.chaos.faults.plan import KindRule
from tests.chaos.faults.proxy import FaultProxy
from tests.chaos.faults.traps import BatchTraps
from tests.chaos.rig.fleet import ProducerFleet
from tests.chaos.rig.leadership import Leadership
from tests.chaos.rig.settings import ChaosSettings
from tests.chaos.rig.watch import Watch

STREAMS = ("streams-1", "streams-2")
SPARE = "streams-3"
TRAINERS = ("trainer-1", "trainer-2")
REPLICAS = ("replica-1", "replica-2", "replica-3")
OURS = (*STREAMS, *TRAINERS, "deployer-1", *REPLICAS)
BROKERS = ("broker-1", "broker-2", "broker-3")
DETOURED = ("streams-1", "trainer-1")
CLOCKED = ("streams-2", "trainer-2", "deployer-1", "replica-3")
SMALL_BROKER, SMALL_BROKER_MIB = "broker-3", 768
# The log of Postgres is on a small disk, with space for twice max_wal_size and for what a checkpoint keeps.
SMALL_DATABASE, SMALL_LOG_MIB = "postgres", 640
SMALL_LOG_SETTINGS = {"max_wal_size": "192MB", "min_wal_size": "80MB"}
# Every dead process is restarted, and soon: the time between faults is short.
RESTARTS = RestartPolicy(deaths=10_000, first_delay_seconds=0.2, longest_delay_seconds=1.0)
HOUR = 3_600.0


class TrappedSystem(System):
    """The normal system, except that its streams workers start with a trap."""

    def __init__(self, plan: SystemPlan, traps: BatchTraps) -> None:
        self._traps = traps
        super().__init__(plan, policy=RESTARTS)

    def _spec(self, endpoint: Endpoint) -> ProcessSpec:
        spec = super()._spec(endpoint)
        if endpoint.service != Service.STREAMS:
            return spec
        return replace(spec, command=(sys.executable, "-m", *self._traps.launcher(endpoint.name, endpoint.service)))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running stack, with everything that faults act on."""

    system: System
    installation: Installation
    context: FaultContext

    @property
    def brokers(self) -> str:
        """Return the address for clients."""
        return self.installation.brokers


def rules(settings: ChaosSettings, *, disk: bool, clocks: bool) -> dict[str, KindRule]:
    """Return how each kind is drawn on this machine, without the kinds that the machine does not allow."""
    producers = tuple(f"producer-{number}" for number in range(1, settings.producers + 1))
    ways = tuple(f"{process}>{service}" for process in DETOURED for service in ("postgres", "broker"))
    freeze = (SESSION_SECONDS + 2.0, SESSION_SECONDS + 4.0)
    found = {
        "kill": KindRule(weight=6, targets=(*STREAMS, *OURS), heals_within_seconds=15.0),
        "kill_producer": KindRule(weight=1, targets=producers),
        "kill_training": KindRule(weight=1, targets=("a training",)),
        "freeze": KindRule(weight=4, targets=(*STREAMS, *OURS), seconds=freeze, heals_within_seconds=10.0),
        "freeze_in_batch": KindRule(weight=2, targets=STREAMS, seconds=freeze, heals_within_seconds=10.0),
        "freeze_producer": KindRule(weight=1, targets=producers, seconds=freeze),
        "broker_kill": KindRule(weight=2, targets=BROKERS, heals_within_seconds=15.0),
        "broker_freeze": KindRule(weight=1, targets=BROKERS, seconds=(5.0, 7.0), heals_within_seconds=8.0),
        "backend_kill": KindRule(weight=3, targets=("backend",), heals_within_seconds=1.0),
        "postmaster_kill": KindRule(weight=1, targets=("postgres",), heals_within_seconds=10.0),
        "postgres_freeze": KindRule(weight=1, targets=("postgres",), seconds=(5.0, 8.0), heals_within_seconds=10.0),
        "rebalance": KindRule(weight=1, targets=(SPARE,), seconds=(6.0, 9.0), heals_within_seconds=15.0),
        "clock_jump": KindRule(
            weight=2, targets=CLOCKED, seconds=(8.0, 12.0), sizes=(-12 * HOUR, -HOUR, HOUR / 2, 2 * HOUR, 30 * HOUR)
        ),
        "slow_connection": KindRule(weight=1, targets=ways, seconds=(6.0, 9.0), sizes=(0.05, 0.2, 0.6)),
        "silent_connection": KindRule(weight=1, targets=ways, seconds=(8.0, 13.0)),
        "cut_connection": KindRule(weight=1, targets=ways, seconds=(1.0, 5.0)),
        "disk_full": KindRule(
            weight=1, targets=(SMALL_BROKER, SMALL_DATABASE), seconds=(4.0, 6.0), heals_within_seconds=20.0
        ),
    }
    missing = {"disk_full": disk, "clock_jump": clocks}
    return {kind: rule for kind, rule in found.items() if missing.get(kind, True)}


@asynccontextmanager
async def running_cluster(settings: ChaosSettings, say: Say) -> AsyncIterator[Cluster]:
    """Start everything except the producers; stop it at the end of the block.

    Raises:
        ProcessFailedError: a process did not start.
    """
    folder = settings.folder / "stack"
    clocks = FakeClocks(settings.folder / "clocks")
    async with AsyncExitStack() as stack:
        disks = _mounted(folder, settings.folder / "wal", stack, say)
        plan = SystemPlan(
            folder=folder, brokers=3, replicas=3, trainers=2, streams_workers=2, spare_streams_workers=1, detoured=DETOURED,
            wide_partitions=settings.wide_partitions, replica_port=0,
            environment={
                "FINCOACH_SESSION_TIMEOUT_SECONDS": f"{SESSION_SECONDS:g}",
                "FINCOACH_TRAINING_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
                "FINCOACH_TRAINING_RETRY_SECONDS": "1",
            },
            environments={name: clocks.environment(name) for name in CLOCKED},
            server_settings=SMALL_LOG_SETTINGS if disks else {},
        )  # fmt: skip
        traps = BatchTraps(settings.folder / "traps")
        system = TrappedSystem(plan, traps)
        if disks:
            _move_log(folder / "postgres" / "data" / "pg_wal", disks[SMALL_DATABASE])
        proxies = {(way.process, way.service): FaultProxy(way.listen_port, way.target_port) for way in system.detours}
        for proxy in proxies.values():
            await stack.enter_async_context(proxy.running())
        await stack.enter_async_context(system.supervisor)
        installation = await system.start(say)
        workers = {endpoint.name: endpoint.url for endpoint in system.planned if endpoint.service == Service.STREAMS}
        context = FaultContext(
            urls={endpoint.name: endpoint.url for endpoint in system.planned},
            supervisor=system.supervisor,
            watch=Watch(system.supervisor.states, database_url=system.database_url, worker_urls=workers),
            leadership=Leadership(installation.brokers),
            fleet=ProducerFleet([], folder=settings.folder / "producers"),
            clocks=clocks, traps=traps, proxies=proxies, disks=disks, logs=folder / "logs", clock=SystemClock(),
            generator=np.random.default_rng([settings.seed, 2]),
        )  # fmt: skip
        yield Cluster(system=system, installation=installation, context=context)


def _mounted(folder: Path, log: Path, stack: AsyncExitStack, say: Say) -> dict[str, SmallDisk]:
    """Give one broker and the database's log a small disk each; return none where this machine does not allow it."""
    disks = {
        SMALL_BROKER: SmallDisk(folder / SMALL_BROKER.replace("broker", "kafka"), mebibytes=SMALL_BROKER_MIB),
        SMALL_DATABASE: SmallDisk(log, mebibytes=SMALL_LOG_MIB),
    }
    for disk in disks.values():
        refusal = disk.mount()
        if refusal is not None:
            say(f"no disk will run full: a tmpfs cannot be mounted here ({refusal})")
            return {}
        stack.callback(disk.unmount)
    return disks


def _move_log(place: Path, disk: SmallDisk) -> None:
    """Move the log of a stopped database to its own disk."""
    there = disk.folder / "pg_wal"
    owner = place.stat()
    shutil.move(place, there)  # keeps modes, not owners
    for path in (disk.folder, there, *there.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    place.symlink_to(there)
    os.lchown(place, owner.st_uid, owner.st_gid)


def clocks_can_be_moved(say: Say) -> bool:
    """Return whether libfaketime is available; report it if not."""
    if faketime_library() is None:
        say("no clock will jump: `pip install libfaketime` (or run `make setup` again)")
        return False
    return True
