"""The lists of the command line on a real database: for people and for programs, and its sentences when something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.installation import Installation, save
from backends.database.repositories.models import ModelRepository
from backends.database.unit_of_work import Database
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import Service
from stack.ports import free_port
from tests.four_models import FOUR_MODELS
from tests.integration.admin_rows import USER, Rows
from tests.integration.backends_topics import database_of

# Command -> what a list for people must say, and keys of its first row for programs.
LISTS: dict[tuple[str, ...], tuple[str, set[str]]] = {
    ("thresholds",): (
        "1000",
        {"model_type", "threshold", "quality_gate", "cool_down_seconds", "adaptive", "blackouts"},
    ),
    ("thresholds", "goal"): ("2592000", {"model_type", "max_age_seconds", "user_share"}),
    ("models",): ("Goal achievement", {"model_type", "title", "distribution", "counts", "registered", "metric"}),
    ("models", "goal"): (" yes ", {"model_type", "threshold", "contract_version"}),
    ("versions",): ("1.0.0", {"model_type", "version", "is_active", "artifact_digest"}),
    ("versions", "goal", "--decisions"): ("better [a/b] by 0.02", {"decision", "reason", "decided_at"}),
    ("datasets",): ("0.9123", {"dataset_type", "data_count", "threshold", "data_quality_score", "anomaly_count"}),
    ("datasets", "goal", "--evaluations"): ("51 of 50, quality 0.91: training", {"decision", "sentence"}),
    ("trainings",): ("better than both", {"model_type", "status", "verdict", "reasons"}),
    ("trainings", "--queue"): ("trainer-1", {"model_type", "status", "lease_until"}),
    ("events",): ("transaction_creation", {"event_id", "occurred_at", "event_type", "partition", "offset"}),
    ("events", "--user", str(USER), "--type", "transaction_creation"): (str(USER), {"user_id"}),
    ("dead-letters", "--reason", "unknown_type"): ("[/red] [bold]x", {"reason", "detail", "topic", "bytes"}),
    ("audit",): ("RollBackModel", {"actor", "action", "subject", "outcome", "details"}),
}
EMPTY: dict[tuple[str, ...], str] = {
    ("versions",): "No version yet: is the deployer running?",
    ("versions", "--decisions"): "No decision yet.",
    ("datasets", "goal", "--evaluations"): "Nothing was evaluated yet.",
    ("trainings",): "No training yet: a model trains when its data set reaches its threshold",
    ("trainings", "--queue"): "The queue is empty.",
    ("events", "--user", str(USER)): "No such event.",
    ("dead-letters",): "No dead letters.",
    ("audit",): "Nobody has given a command yet.",
}


@pytest.fixture
def folder(tmp_path: Path, database_url: str) -> Path:
    """Return the folder of an installation whose database is this test's own, and whose broker is away."""
    installation = Installation(
        database_url=database_url, brokers=f"127.0.0.1:{free_port()}", store_url=f"file://{tmp_path}/store", keys_folder=str(tmp_path),
        wide_partitions=4, processes=(),
    )  # fmt: skip
    save(tmp_path, installation)
    return tmp_path


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a way to the database."""
    async with database_of(Service.ADMIN, database_url) as database:
        yield database


async def command(*arguments: str, folder: Path) -> Result:
    """Return what a command does."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, [*arguments, "--folder", str(folder)]))


async def test_each_list_shows_its_rows_to_people_and_to_programs(folder: Path, database: Database) -> None:
    """Each list shows its rows and all its columns to people, and valid JSON to programs."""
    await Rows(database).everything()
    for arguments, (text, keys) in LISTS.items():
        for_people = await command(*arguments, folder=folder)
        for_programs = await command(*arguments, "--json", folder=folder)
        assert (for_people.exit_code, for_programs.exit_code) == (0, 0), (arguments, for_people, for_programs)
        assert text in for_people.stdout, arguments
        rows: list[dict[str, Any]] = msgspec.json.decode(for_programs.stdout)
        assert keys <= rows[0].keys(), arguments


async def test_an_empty_list_says_what_is_missing(folder: Path) -> None:
    """An empty list says what is missing."""
    for arguments, sentence in EMPTY.items():
        for_people = await command(*arguments, folder=folder)
        for_programs = await command(*arguments, "--json", folder=folder)
        assert (for_people.exit_code, for_programs.exit_code) == (0, 0), (arguments, for_people)
        assert " ".join(for_people.stdout.split()).startswith(sentence), arguments
        assert msgspec.json.decode(for_programs.stdout) == []


async def test_lists_can_be_narrowed_and_cut(folder: Path, database: Database) -> None:
    """A list can be narrowed to one model and limited to a number of rows."""
    await Rows(database).everything()
    of_spending = await command("trainings", "spending", "--json", folder=folder)
    one = await command("trainings", "--limit", "1", "--json", folder=folder)
    nobody = await command("events", "--user", str(USER).replace("0b", "0c"), "--json", folder=folder)
    assert [row["model_type"] for row in msgspec.json.decode(of_spending.stdout)] == ["spending"]
    assert len(msgspec.json.decode(one.stdout)) == 1
    assert msgspec.json.decode(nobody.stdout) == []


async def test_a_model_that_the_database_knows_and_nobody_brings_is_listed(folder: Path, database: Database) -> None:
    """Who removes a package sees that its rows are still there."""
    async with database.transaction() as work:
        await ModelRepository(work.connection).register({"weather": ThresholdRule(threshold=5)})
    rows = msgspec.json.decode((await command("models", "--json", folder=folder)).stdout)
    registered = {row["model_type"]: row["registered"] for row in rows}
    assert registered["weather"] is True
    assert rows[-1]["distribution"] == "not installed here"
    assert all(registered[model_type] for model_type in FOUR_MODELS)


async def test_the_thresholds_of_the_plan_are_there_after_the_migrations(folder: Path) -> None:
    """After the migrations the planned thresholds are in force."""
    rows = msgspec.json.decode((await command("thresholds", "--json", folder=folder)).stdout)
    assert {row["model_type"]: row["threshold"] for row in rows} == {
        "recommendation": 500, "segmentation": 100, "spending": 1000, "goal": 50,
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [("versions",), ("audit", "--json")])
async def test_a_database_that_is_away_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A database that is away is reported in one sentence."""
    url = f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/none"
    installation = Installation(
        database_url=url, brokers="", store_url="", keys_folder="", wide_partitions=4, processes=()
    )
    save(tmp_path, installation)
    result = await command(*arguments, folder=tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: the database does not answer (" in result.stderr
    assert "run `fincoach-learning status`" in " ".join(result.stderr.split())


async def test_a_command_without_a_broker_ends_with_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker, a command ends with a sentence that says what became of it."""
    monkeypatch.setattr("admin.gateway.CONNECT_SECONDS", 0.3)
    result = await command("rollback", "goal", folder=folder)
    assert result.exit_code == 1
    assert "does not answer, nothing was sent" in " ".join(result.stderr.split())


async def test_status_names_the_broken_link_to_people_and_to_programs(folder: Path) -> None:
    """The status names the broken link to people and to programs."""
    for_people = await command("status", folder=folder)
    for_programs = await command("status", "--json", folder=folder)
    answer = msgspec.json.decode(for_programs.stdout)
    assert (for_people.exit_code, for_programs.exit_code) == (1, 1)
    assert "First broken link: broker" in for_people.stdout
    assert "Next: fincoach-learning doctor" in for_people.stdout
    assert (answer["whole"], answer["first_broken"]["name"]) == (False, "broker")
    assert [link["name"] for link in answer["links"]][:3] == ["database", "broker", "streams"]
    assert answer["links"][0]["holds"]
