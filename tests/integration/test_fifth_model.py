"""A fifth model goes through the whole loop: a wheel of its own, beside processes in which nothing was changed for it.

The wheel of ``examples/churn`` is built and installed into a folder that only the processes under test look into. They are
the real ones, on a broker and a database.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import numpy as np
import pytest

from admin.installation import Installation, save
from backends.broker.kafka import create_topics
from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from fincoach_events.identifiers import event_id_from_key, user_id_from_name
from stack.replay.cdnow import CdnowSource
from tests.chaos.rig.aimed_topics import remove_topics
from tests.four_models import FOUR_MODELS
from tests.integration.streams_workers import in_batches, outgoing, producing
from tests.processes import RunningService, eventually, running
from tests.services import WIDE_PARTITIONS, connect
from tools.reference.packages import ROOT

MODEL = "churn"
EXAMPLE = ROOT / "examples" / MODEL
FIRST_DAY = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
DAYS, BATCH = 420, 1_000
CATEGORIES = ("shopping", "groceries", "entertainment", "health")
TRAINED_SECONDS = 180.0
NOBODY = UUID(int=0x5EED)
pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder into which the example's wheel was installed, and nothing else."""
    folder = tmp_path_factory.mktemp("churn")
    source = folder / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=60)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder / "packages"), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True, timeout=120)
    return folder / "packages"


@pytest.fixture
def with_churn(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that this test starts find the package; the shared environment stays as it is."""
    known = os.environ.get("PYTHONPATH")  # noqa: TID251 - a child's environment
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), str(ROOT), *([known] if known else [])]))


async def answered(*arguments: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON of ``fincoach-learning``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stack", *arguments, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return msgspec.json.decode(out)


@dataclass(frozen=True)
class Loop:
    """The running processes, and the way to their database."""

    folder: Path
    broker: str
    replica: RunningService
    connection: asyncpg.Connection

    async def command(self, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
        """Return the JSON of ``fincoach-learning`` about this installation."""
        return await answered(*arguments, "--folder", str(self.folder))

    async def ask(self, user: UUID, as_of: dt.datetime) -> dict[str, Any]:
        """Return the replica's answer about a user at a moment."""
        response = await self.replica.post(f"/predict/{MODEL}", {"user_id": str(user), "as_of": as_of.isoformat()})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def serves(self, version: str) -> None:
        """Wait until the replica serves a version of churn."""

        async def looked_at() -> bool:
            return bool((await self.ask(NOBODY, FIRST_DAY))["model_version"] == version)

        await eventually(looked_at, what=f"version {version} of {MODEL}")

    async def trained(self) -> asyncpg.Record:
        """Wait until the first training of churn has ended, and return it."""

        async def found() -> asyncpg.Record | None:
            return await self.connection.fetchrow(
                "SELECT * FROM model_training_events WHERE model_type = $1 AND verdict IS NOT NULL", MODEL
            )

        row: asyncpg.Record = await eventually(found, what=f"the training of {MODEL}", seconds=TRAINED_SECONDS)
        return row


@pytest.fixture
async def loop(with_churn: None, database_url: str, own_broker: str, tmp_path: Path) -> AsyncIterator[Loop]:
    """Give the whole loop on a fresh database, in which only the fifth model may train."""
    del with_churn
    await remove_topics(own_broker)  # each test has a database of its own, and topics that agree with it
    await create_topics(own_broker, wide_partitions=WIDE_PARTITIONS)
    connection = await connect(database_url)
    await connection.execute(
        "UPDATE thresholds SET updated_by = 'test', threshold = 1000000000, adaptive = false, max_age_seconds = NULL"
    )
    save(tmp_path, Installation(
        database_url=database_url, brokers=own_broker, store_url=f"file://{tmp_path / 'store'}", keys_folder=str(tmp_path / "keys"),
        wide_partitions=WIDE_PARTITIONS, processes=(),
    ))  # fmt: skip
    settings = {"database_url": database_url, "brokers": own_broker, "wide_partitions": WIDE_PARTITIONS}
    services = ("streams", "trainers", "deployer", "serving")
    async with contextlib.AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(running(name, tmp_path, instance=f"{name}-1", **settings))
            for name in services
        ]
        await asyncio.gather(*(each.ready() for each in started))
        yield Loop(tmp_path, own_broker, started[-1], connection)
        await asyncio.gather(*(each.end() for each in started))
    await connection.close()


def customers(users: int, *, seed: int = 0) -> list[AnyBehavioralEvent]:
    """Return the purchases of customers who each buy at a pace of their own, until most of them stop for good."""
    generator = np.random.default_rng(seed)
    purchases = []
    for user in range(users):
        day, stops = float(generator.uniform(0, 60)), float(generator.exponential(250))
        while day < min(DAYS, stops + 60):
            purchases.append((day, user, round(100 * float(generator.lognormal(3.0, 0.5)))))
            day += float(generator.exponential(12 + 40 * (user % 3)))
    return [
        TransactionCreated(
            event_id=event_id_from_key(f"customers/{number}"), user_id=user_id_from_name("customers", str(user)),
            occurred_at=FIRST_DAY + dt.timedelta(days=day), consent=True, source="replay:customers", amount_minor=amount, currency="USD",
            category=CATEGORIES[user % len(CATEGORIES)], transaction_type="debit",
        )
        for number, (day, user, amount) in enumerate(sorted(purchases))
    ]  # fmt: skip


def cdnow() -> list[AnyBehavioralEvent]:
    """Return the paid purchases of CDNOW's first customers."""
    return [
        event
        for event in CdnowSource(customers=12_000).events()
        if isinstance(event, TransactionCreated) and event.amount_minor
    ]


async def send(loop: Loop, events: Sequence[AnyBehavioralEvent]) -> None:
    """Send events in their order."""
    async with producing(loop.broker) as producer:
        for batch in in_batches([outgoing(event) for event in events], BATCH):
            await producer.publish_batch(batch)


def lapsed_and_faithful(events: Sequence[AnyBehavioralEvent]) -> tuple[UUID, UUID]:
    """Return who bought once and long ago, and who bought most often of late."""
    last, late = events[-1].occurred_at, {}
    counts: dict[UUID, int] = {}
    for event in events:
        counts[event.user_id] = counts.get(event.user_id, 0) + 1
        late[event.user_id] = event.occurred_at
    lapsed = next(user for user, moment in late.items() if counts[user] == 1 and (last - moment).days > 200)
    recent = [user for user, moment in late.items() if (last - moment).days < 20]
    return lapsed, max(recent, key=lambda user: counts[user])


async def test_a_fifth_model_is_known_before_it_has_learned_anything(loop: Loop) -> None:
    """The model is listed, sound, registered with the rule that it ships, and answered by its version 0."""
    rows = {row["model_type"]: row for row in await loop.command("models", "list")}
    assert rows.keys() == {*FOUR_MODELS, MODEL}
    assert rows[MODEL]["distribution"] == "fincoach-churn-example 0.1.0"
    assert rows[MODEL]["registered"] is True
    assert rows[MODEL]["metric"]["name"] == "log_loss"
    (rule,) = await loop.command("thresholds", MODEL)
    assert (rule["threshold"], rule["updated_by"]) == (1_000, "installation")
    answer = await loop.ask(NOBODY, FIRST_DAY)
    assert (answer["model_version"], answer["kind"], answer["days_since_purchase"]) == ("0.0.0", "baseline", None)
    for model_type in FOUR_MODELS:
        response = await loop.replica.post(f"/predict/{model_type}", {"user_id": str(NOBODY)})
        assert response.status_code == 200


@pytest.mark.parametrize("history", ["customers", "cdnow"])
async def test_a_fifth_model_is_counted_trained_judged_served_and_rolled_back(history: str, loop: Loop) -> None:
    """A model package of somebody else learns and serves as ours do, on made customers and on CDNOW's."""
    events = customers(600) if history == "customers" else cdnow()
    # All of them: a crossing in the middle would leave one partition behind, and outcomes are known only as far as the last one.
    await loop.command("thresholds", MODEL, "--set", str(len(events)), "--fixed", "--max-age", "0")
    await send(loop, events)
    training = await loop.trained()
    assert (training["verdict"], training["status"]) == ("candidate_wins", "completed"), training["reasons"]
    assert training["training_data_size"] > 1_000
    (data_set, *_) = [row for row in await loop.command("datasets", MODEL) if row["epoch"] == 1]
    assert data_set["data_count"] == len(events)

    await loop.serves("1.0.0")
    lapsed, faithful = lapsed_and_faithful(events)
    moment = events[-1].occurred_at + dt.timedelta(hours=1)
    gone, kept = await loop.ask(lapsed, moment), await loop.ask(faithful, moment)
    assert (kept["kind"], kept["state"]) == ("learned", gone["state"])
    assert gone["probability_of_return"] < 0.2 < kept["probability_of_return"]
    assert (
        gone["days_since_purchase"] is None or gone["days_since_purchase"] > 200
    )  # None: longer than a state remembers
    assert kept["days_since_purchase"] <= 20

    await loop.command("rollback", MODEL, "--reason", "a test")
    await loop.serves("0.0.0")
    served = {row["version"]: row["is_active"] for row in await loop.command("versions", MODEL)}
    assert served == {"0.0.0": True, "1.0.0": False}
    others = await loop.connection.fetchval("SELECT count(*) FROM model_training_events WHERE model_type <> $1", MODEL)
    assert others == 0


async def test_every_process_imports_five_sound_models(with_churn: None) -> None:
    """`models check` finds nothing wrong with five models, and no learning library in a replica or a worker."""
    del with_churn
    found = await answered("models", "check")
    assert found["sound"] is True
    libraries = {each["process"]: each["libraries"] for each in found["processes"]}
    assert (libraries["streams"], libraries["serving"]) == ([], ["onnxruntime"])


def test_the_package_passes_its_own_tests(with_churn: None) -> None:
    """The example holds what it promises: the checks for every model package, and its own."""
    del with_churn
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    ran = subprocess.run([*command, str(EXAMPLE / "tests")], check=False, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-5000:]
