"""A small fixed place for aimed runs: one broker and one Postgres that stay up, a database and topics anew for each run.

Processes are real and started through ``launch.py``. A run writes what the oracle reads: journals, ``timeline.jsonl``
and ``run.json`` in its folder.
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
from tests.chaos.oracle.invariants import Law
from tests.chaos.oracle.recount import judge
from tests.chaos.oracle.world import MODELS
from tests.chaos.rig.aimed_load import Load
from tests.chaos.rig.aimed_processes import Room, Trap, YardError, eventually
from tests.chaos.rig.aimed_topics import empty_topics
from tests.services import connect, database_address, running_in_background

WIDE_PARTITIONS = 4
THRESHOLDS = {"recommendation": 25, "segmentation": 4, "spending": 80, "goal": 8}
# What a law needs to count as shown in a run of some seconds.
MINIMUMS = {
    "events": 300, "duplicates": 5, "dead letters": 3, "panes": 8, "epochs": 2, "users": 20, "announcements": 20, "faults": 1,
    "trainings": 1, "deployment states": 4, "swaps": 1, "replicas": 1, "predictions": 5,
}  # fmt: skip
NEVER = 1_000_000  # a threshold that no run reaches
Settings = Mapping[str, object]  # of a process, by their names in lower case
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
    plant: str | None = None
    rooms: list[Room] = field(default_factory=list)
    thresholds: dict[str, int] = field(default_factory=lambda: dict(THRESHOLDS))
    minimums: dict[str, int] = field(default_factory=lambda: dict(MINIMUMS))
    facts: dict[str, Any] = field(
        default_factory=lambda: {"by_hand": [BEHAVIORAL_EVENTS.name]}
    )  # the load's own retries

    async def set_thresholds(self, **thresholds: int) -> None:
        """Let these models, and no others, reach a threshold."""
        self.thresholds = dict.fromkeys(MODELS, NEVER) | thresholds
        await set_fixed_rules(self.connection, self.thresholds)

    async def start(
        self, room: str = "streams", *, trap: Trap | None = None, held: bool = False, settings: Settings | None = None
    ) -> Room:
        """Start a process of a room, with a trap where one is given, and with the run's planted bug; ``held`` until it is released."""
        port, name = free_port(), f"{room}-{len(self.rooms) + 1}"
        log = self.folder / f"{name}.log"
        hold = self.folder / f"{name}.go" if held else None
        arguments = trap.arguments(self.trace) if trap else []
        if hold is not None:
            arguments += ["--hold", str(hold)]
        if self.plant and room == "streams":
            arguments += ["--plant", self.plant]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.rig.launch", *arguments, "--", room),
                env=self._environment({"port": port, "instance": name, **(settings or {})}), stdout=output, stderr=output,
            )  # fmt: skip
        self.rooms.append(Room(name, process, port, log, hold))
        return self.rooms[-1]

    @property
    def trace(self) -> Path:
        """Where traps say that they have sprung."""
        return self.folder / "traps.jsonl"

    def _environment(self, settings: Mapping[str, object]) -> dict[str, str]:
        named = {
            "brokers": self.brokers, "database_url": self.database_url, "folder": self.folder, "wide_partitions": WIDE_PARTITIONS,
            **STREAMS_SETTINGS, **settings,
        }  # fmt: skip
        ours = {f"FINCOACH_{name.upper()}": str(value) for name, value in named.items()}
        return {**os.environ, **ours}  # noqa: TID251 - a child's environment

    def hit(self, kind: str, target: Room, **evidence: object) -> None:
        """Note a fault that has hit."""
        line = {"t": time.monotonic(), "phase": "end", "kind": kind, "target": target.name, "evidence": evidence}
        with (self.folder / "timeline.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")

    async def is_counted(self) -> bool:
        """Say whether everything that was sent is counted, taken into the data sets and announced."""
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
        """Wait until all is done, for as long as the law allows, and note how long it took."""
        began, is_done = time.monotonic(), check or self.is_counted

        async def is_over() -> bool:
            return await is_done() or all(room.is_dead for room in self.rooms)

        with contextlib.suppress(YardError):
            await eventually(is_over, what="everything to be counted")
        if await is_done():
            self.facts["caught_up_seconds"] = time.monotonic() - began

    async def refused(self, zombie: Room) -> None:
        """Wait until a woken worker has lost its compare, or has ended."""

        async def is_over() -> bool:
            return bool(zombie.said("compare_lost")) or zombie.process.returncode is not None

        with contextlib.suppress(YardError):
            await eventually(is_over, what=f"{zombie.name} to be refused")

    async def panes(self, least: int) -> None:
        """Wait until that many panes are written."""

        async def are_there() -> bool:
            return bool(await self.connection.fetchval("SELECT count(*) >= $1 FROM panes", least))

        await eventually(are_there, what=f"{least} panes")

    async def end(self, laws: Collection[str]) -> dict[str, Law]:
        """End all processes and let the oracle judge."""
        for room in self.rooms:
            await room.kill()
        run = {
            "seed": self.seed, "thresholds": self.thresholds, "minimums": self.minimums, "wide_partitions": WIDE_PARTITIONS,
            "zombies_refused": sum(room.said("compare_lost") for room in self.rooms), **self.facts,
        }  # fmt: skip
        (self.folder / "run.json").write_bytes(msgspec.json.encode(run))
        return await judge(self.folder, brokers=self.brokers, database_url=self.database_url, only=laws)


@dataclass(frozen=True, kw_only=True)
class Yard:
    """The services that stay up, and a template of the database."""

    brokers: str
    postgres: str
    template: str

    @contextlib.asynccontextmanager
    async def run(self, folder: Path, *, seed: int, plant: str | None = None) -> AsyncIterator[Run]:
        """Give a run with an empty database and empty topics; its processes are gone at the end."""
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
        run = Run(folder, self.brokers, url, seed, connection, load, plant)
        try:
            await set_fixed_rules(connection, run.thresholds)
            await load.start()
            yield run
        finally:
            for room in run.rooms:
                await room.kill()
            await load.stop()
            await connection.close()
            await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            await server.close()


@contextlib.contextmanager
def standing_yard(folder: Path) -> Iterator[Yard]:
    """Give a yard with services of its own, which are gone at the end."""
    broker, server = EmbeddedBroker(folder / "broker"), EmbeddedPostgres(folder / "postgres")
    with running_in_background(broker.spec(), server.spec(), folder=folder):
        name = f"template-{uuid4().hex[:12]}"
        asyncio.run(_make_template(server.url, name))
        yield Yard(brokers=broker.address, postgres=server.url, template=name)


async def _make_template(server: str, name: str) -> None:
    connection = await connect(server)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    await create(database_address(server, name))


async def set_fixed_rules(connection: asyncpg.Connection[Any], thresholds: Mapping[str, int]) -> None:
    """Let count alone decide, by a threshold that stays."""
    await connection.execute(
        "UPDATE thresholds SET adaptive = false, quality_gate = 0, cool_down_seconds = 0, max_age_seconds = NULL, user_share = 0.5"
    )
    for model, threshold in thresholds.items():
        await connection.execute("UPDATE thresholds SET threshold = $2 WHERE model_type = $1", model, threshold)
        await connection.execute(
            "UPDATE training_datasets SET threshold = $2 WHERE dataset_type = $1", model, threshold
        )
