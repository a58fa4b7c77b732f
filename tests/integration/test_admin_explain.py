"""``datasets explain`` on what the streams bench has left in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.installation import Installation, save
from backends.clock import ManualClock
from stack.ports import free_port
from tests.integration.streams_bench import Bench, feedback
from tests.integration.streams_workers import database_of, transaction


@pytest.fixture
async def bench(database_url: str, clock: ManualClock) -> AsyncIterator[Bench]:
    """Give the bench over a fresh database."""
    async with database_of(database_url) as database:
        yield Bench(database, clock)


@pytest.fixture
def folder(tmp_path: Path, database_url: str) -> Path:
    """Return the folder of an installation on that database, whose broker is away."""
    installation = Installation(
        database_url=database_url, brokers=f"127.0.0.1:{free_port()}", store_url=f"file://{tmp_path}/store", keys_folder=str(tmp_path),
        wide_partitions=4, processes=(),
    )  # fmt: skip
    save(tmp_path, installation)
    return tmp_path


async def explain(folder: Path, *arguments: str) -> Result:
    """Ask the command line, which has no event loop of its own yet."""
    return await asyncio.to_thread(
        CliRunner(env={"COLUMNS": "200"}).invoke, app, ["datasets", "explain", *arguments, "--folder", str(folder)]
    )


async def test_one_sentence_says_why_a_model_waits(bench: Bench, folder: Path) -> None:
    """One sentence says why a model waits."""
    before = await explain(folder, "recommendation")
    assert "nothing was evaluated yet" in before.stdout
    await bench.feed([feedback(number) for number in range(600)])
    await bench.feed([transaction(1)] * 600, raw=b'{"event_type":"recommendation_interaction","user_id":1}')
    sentence = await bench.check("recommendation")
    result = await explain(folder, "recommendation")
    assert result.exit_code == 0, result.stderr
    assert f"recommendation epoch 1 (open): {sentence}" in result.stdout
    assert sentence.startswith("600 of 500, quality 0.")
    assert "data points since the last epoch" in result.stdout
    assert "relevant 600; invalid 600; out_of_range 0" in " ".join(result.stdout.split()), result.stdout
    answer = msgspec.json.decode((await explain(folder, "recommendation", "--json")).stdout)
    assert answer["quality_parts"]["counts"]["invalid"] == 600
    assert (answer["decision"], answer["sentence"]) == ("waiting_for_quality", sentence)
    figures = {factor["factor"]: factor["value"] for factor in answer["factors"]}
    assert (figures["counted"], figures["threshold"], figures["users"]) == (600, 500, 40)


async def test_a_closed_epoch_says_why_it_was_trained(bench: Bench, folder: Path) -> None:
    """A closed epoch still says why it was trained."""
    await bench.feed([transaction(number) for number in range(1_000)])
    await bench.feed([transaction(number) for number in range(1_000, 1_010)])
    await bench.check("spending")
    assert "epoch 1 (closed): 1000 of 1000, quality" in (await explain(folder, "spending", "--epoch", "1")).stdout
    assert "epoch 2 (open): 10 of 1000, quality" in (await explain(folder, "spending")).stdout
    unknown = await explain(folder, "spending", "--epoch", "9")
    assert unknown.exit_code == 1
    assert "spending has no epoch 9; `datasets spending` lists them" in unknown.stderr
