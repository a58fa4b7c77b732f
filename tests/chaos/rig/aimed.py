"""The infrastructure of aimed runs: one broker and one Postgres stay up; each run gets a new database and empty topics.

Processes are real and start through ``launch.py``. A run writes what the oracle reads: journals, ``timeline.jsonl`` and
``run.json`` in its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from migrations.create_continuous_learning_tables import create
from schemas.topics import BEHAVIORAL_EVENTS
from stack.broker import EmbeddedBroker
from stack.ports import free_port
from stack.postgres import EmbeddedPostgres
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.oracle.recount import judge
from tests.chaos.oracle.world import MODELS
from tests.chaos.rig.aimed_load import Load
from tests.chaos.rig.aimed_processes import AimedProcess, AimedRunError, Trap, eventually
from tests.chaos.rig.aimed_topics import empty_topics
from tests.services import connect, database_address, running_in_background

WIDE_PARTITIONS = 4
THRESHOLDS = {"recommendation": 25, "segmentation": 4, "spending": 80, "goal": 8}
# How much an invariant needs to count as exercised in a run of some seconds.
MINIMUMS = {
    "events": 300, "duplicates": 5, "dead letters": 3, "panes": 8, "epochs": 2, "users": 20, "announcements": 20, "faults": 1,
    "trainings": 1, "deployment states": 4, "swaps": 1, "replicas": 1, "predictions": 5,
}  # fmt: skip
NEVER = 1_000_000  # a threshold that no run reaches
Settings = Mapping[str, object]  # of a process, by name in lower case
STREAMS_SETTINGS = {"batch_records": 40, "session_timeout_seconds": 6, "readiness_seconds": 0.1}


@dataclass
class Run:
    """One run: its folder, its database, its producer and its processes."""

    folder: Path
    brokers: str
    database_url: str
    seed: int
    connection: asyncpg.Connection[Any]
    load: Load
    seeded_fault: str | None = None
    processes: list[AimedProcess] = field(default_factory=list)
    thresholds: dict[str, int] = field(default_factory=lambda: dict(THRESHOLDS))
    minimums: dict[str, int] = field(default_factory=lambda: dict(MINIMUMS))
    facts: dict[str, Any] = field(
        default_factory=lambda: {"direct_topics": [BEHAVIORAL_EVENTS.name]}  # the load sends retries without the outbox
    )

    async def set_thresholds(self, **thresholds: int) -> None:
        """Give these models a threshold that they reach; no other model reaches one."""
        self.thresholds = dict.fromkeys(MODELS, NEVER) | thresholds
        await set_fixed_rules(self.connection, self.thresholds)

    async def start(
        self,
        service: str = "streams",
        *,
        trap: Trap | None = None,
        held: bool = False,
        settings: Settings | None = None,
    ) -> AimedProcess:
        """Start a process of a service, with ``trap`` if given and with the run's seeded fault; a ``held`` one waits for release."""
        port, name = free_port(), f"{service}-{len(self.processes) + 1}"
        log = self.folder / f"{name}.log"
        hold = self.folder / f"{name}.go" if held else None
        arguments = trap.arguments(self.trace) if trap else []
        if hold is not None:
            arguments += ["--hold", str(hold)]
        if self.seeded_fault and service == "streams":
            arguments += ["--seed-fault", self.seeded_fault]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.rig.launch", *arguments, "--", service),
                env=self._environment({"port": port, "instance": name, **(settings or {})}), stdout=output, stderr=output,
            )  # fmt: skip
        self.processes.append(AimedProcess(name, process, port, log, hold))
        return self.processes[-1]

    @property
    def trace(self) -> Path:
        """The file in which traps record that they were triggered."""
        return self.folder / "traps.jsonl"

    def _environment(self, settings: Mapping[str, object]) -> dict[str, str]:
        named = {
            "brokers": self.brokers, "database_url": self.database_url, "folder": self.folder, "wide_partitions": WIDE_PARTITIONS,
            **STREAMS_SETTINGS, **settings,
        }  # fmt: skip
        ours = {f"FINCOACH_{name.upper()}": str(value) for name, value in named.items()}
        return {**os.environ, **ours}  # noqa: TID251 - a child's environment

    def record_fault(self, kind: str, target: AimedProcess, **evidence: object) -> None:
        """Record a fault that took effect."""
        line = {"t": time.monotonic(), "phase": "end", "kind": kind, "target": target.name, "evidence": evidence}
        with (self.folder / "timeline.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")

    async def is_counted(self) -> bool:
        """Return whether everything sent is counted, taken into the data sets and announced."""
        sent = await self.load.end_of(BEHAVIORAL_EVENTS.name)
        ledger = await self.connection.fetchval(
            "SELECT coalesce(sum(next_offset), 0) FROM ledger WHERE topic = $1", BEHAVIORAL_EVENTS.name
        )
        taken = await self.connection.fetch("SELECT sum(next_offset) AS next FROM dataset_cursors GROUP BY model_type")
        waiting = await self.connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
        return (
            ledger == sent and len(taken) == len(MODELS) and all(row["next"] == sent for row in taken) and waiting == 0
        )

    async def catch_up(self, check: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Wait until everything is done, at most as long as the invariant allows, and record how long that took."""
        began, is_done = time.monotonic(), check or self.is_counted

        async def is_over() -> bool:
            return await is_done() or all(process.is_dead for process in self.processes)

        with contextlib.suppress(AimedRunError):
            await eventually(is_over, what="everything to be counted")
        if await is_done():
            self.facts["caught_up_seconds"] = time.monotonic() - began

    async def refused(self, zombie: AimedProcess) -> None:
        """Wait until the ledger has refused a woken worker's batch, or the worker has ended."""

        async def is_over() -> bool:
            return bool(zombie.log_count("compare_lost")) or zombie.process.returncode is not None

        with contextlib.suppress(AimedRunError):
            await eventually(is_over, what=f"{zombie.name} to be refused")

    async def panes(self, minimum: int) -> None:
        """Wait until at least ``minimum`` panes are written."""

        async def are_there() -> bool:
            return bool(await self.connection.fetchval("SELECT count(*) >= $1 FROM panes", minimum))

        await eventually(are_there, what=f"{minimum} panes")

    async def end(self, invariants: Collection[str]) -> dict[str, Verdict]:
        """End all processes and return the oracle's verdicts."""
        for process in self.processes:
            await process.kill()
        run = {
            "seed": self.seed, "thresholds": self.thresholds, "minimums": self.minimums, "wide_partitions": WIDE_PARTITIONS,
            "zombies_refused": sum(process.log_count("compare_lost") for process in self.processes), **self.facts,
        }  # fmt: skip
        (self.folder / "run.json").write_bytes(msgspec.json.encode(run))
        return await judge(self.folder, brokers=self.brokers, database_url=self.database_url, only=invariants)


@dataclass(frozen=True, kw_only=True)
class Infrastructure:
    """The broker and the Postgres server that stay up, and a template database."""

    brokers: str
    postgres: str
    template: str

    @contextlib.asynccontextmanager
    async def run(self, folder: Path, *, seed: int, seeded_fault: str | None = None) -> AsyncIterator[Run]:
        """Yield a run with an empty database and empty topics; its processes are gone afterwards."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        name = f"run-{uuid4().hex[:12]}"
        server = await connect(self.postgres)
        await asyncio.gather(
            server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{self.template}"'),
            empty_topics(self.brokers, wide_partitions=WIDE_PARTITIONS),
        )
        url = database_address(self.postgres, name)
        connection = await connect(url)
        load = Load(self.brokers, folder, seed=seed, wide_partitions=WIDE_PARTITIONS)
        run = Run(folder, self.brokers, url, seed, connection, load, seeded_fault)
        try:
            await set_fixed_rules(connection, run.thresholds)
            await load.start()
            yield run
        finally:
            for process in run.processes:
                await process.kill()
            await load.stop()
            await connection.close()
            await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            await server.close()


@contextlib.contextmanager
def embedded_infrastructure(folder: Path) -> Iterator[Infrastructure]:
    """Yield an embedded broker and Postgres server, which are gone afterwards."""
    broker, server = EmbeddedBroker(folder / "broker"), EmbeddedPostgres(folder / "postgres")
    with running_in_background(broker.spec(), server.spec(), folder=folder):
        name = f"template-{uuid4().hex[:12]}"
        asyncio.run(_make_template(server.url, name))
        yield Infrastructure(brokers=broker.address, postgres=server.url, template=name)


async def _make_template(server: str, name: str) -> None:
    connection = await connect(server)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    await create(database_address(server, name))


async def set_fixed_rules(connection: asyncpg.Connection[Any], thresholds: Mapping[str, int]) -> None:
    """Let counts alone close epochs, by fixed thresholds."""
    await connection.execute(
        "UPDATE thresholds SET updated_by = 'test', adaptive = false, quality_gate = 0, cool_down_seconds = 0, max_age_seconds = NULL, user_share = 0.5"
    )
    for model, threshold in thresholds.items():
        await connection.execute(
            "UPDATE thresholds SET updated_by = 'test', threshold = $2 WHERE model_type = $1", model, threshold
        )
        await connection.execute(
            "UPDATE training_datasets SET threshold = $2 WHERE dataset_type = $1", model, threshold
        )
