"""Reviews of data sets on real services: approved in spite of their quality, or quarantined."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.installation import Installation, save
from backends.broker.interface import Record
from backends.broker.kafka import create_topics
from backends.control import CommandHandler, Execution
from backends.database.outbox import OutboxRelay
from fincoach_events.events import RecommendationInteraction
from schemas.codec import decode, encode
from schemas.messages.control import ApproveDataset, Command, QuarantineDataset
from schemas.messages.envelope import OffsetRange
from schemas.topics import BEHAVIORAL_EVENTS, CONTROL, CONTROL_RESULTS, TOPICS
from tests.four_models import FOUR_MODELS
from tests.integration.backends_topics import consuming, producing
from tests.integration.streams_bench import Bench, alerts, answers, crossings, feedback, send
from tests.integration.streams_workers import transaction


def executions_of(bench: Bench) -> dict[type[Command], Execution]:
    """Return the executors of review commands."""
    return {ApproveDataset: bench.service.approve_dataset, QuarantineDataset: bench.service.quarantine_dataset}


async def give(bench: Bench, kind: type[Command], **fields: Any) -> None:  # noqa: ANN401 - fields of the command
    """Handle a command, about spending by default."""
    command = kind(
        event_id=uuid.uuid4(), occurred_at=bench.clock.now(), issuer="alice", expires_at=bench.clock.now() + dt.timedelta(minutes=5),
        **{"model_type": "spending", "reason": "a bot", **fields},
    )  # fmt: skip
    record = Record(
        topic=CONTROL.name, partition=0, offset=0, key=b"spending", value=encode(command), timestamp=bench.clock.now()
    )
    await CommandHandler(bench.database, bench.clock, executions_of(bench), models=FOUR_MODELS).handle(record)


def doubtful(number: int) -> RecommendationInteraction:
    """Return an answer to a recommendation that was never shown, which is inconsistent."""
    return feedback(number)


async def waiting(bench: Bench, connection: asyncpg.Connection) -> None:
    """Bring recommendation to wait for its quality."""
    await connection.execute(
        "UPDATE thresholds SET updated_by = 'test', quality_gate = 1.0 WHERE model_type = 'recommendation'"
    )
    await bench.feed([doubtful(number) for number in range(600)])
    assert "waiting" in await bench.check("recommendation")


async def dataset(connection: asyncpg.Connection, model_type: str, epoch: int) -> asyncpg.Record:
    """Return the row of a data set."""
    row = await connection.fetchrow(
        "SELECT * FROM training_datasets WHERE dataset_type = $1 AND epoch = $2", model_type, epoch
    )
    assert row is not None
    return row


def span(first: int, last: int, *, partition: int = 0) -> OffsetRange:
    """Return a range of behavioural events."""
    return OffsetRange(
        topic=BEHAVIORAL_EVENTS.name, generation=1, partition=partition, from_offset=first, to_offset=last
    )


def ranges_in(raw: str | None) -> list[OffsetRange]:
    """Return ranges from a column."""
    return msgspec.json.decode(raw or "[]", type=list[OffsetRange])


# ---------------------------------------------------------------- approve


async def test_an_approved_data_set_trains_at_once_and_says_who_accepted_it(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """An approval releases this data set only, and the audit log records by whom."""
    await waiting(bench, connection)
    await give(bench, ApproveDataset, model_type="recommendation", reason=" a sale ")
    ((outcome, detail),) = await answers(connection)
    assert outcome == "succeeded"
    assert "accepted by alice: train" in detail
    (crossing,) = [one for one in await crossings(connection) if one.model_type == "recommendation"]
    assert (crossing.epoch, crossing.counted) == (1, 600)
    first, second = [await dataset(connection, "recommendation", epoch) for epoch in (1, 2)]
    assert (first["review"], first["reviewed_by"], first["review_reason"]) == ("approved", "alice", "a sale")
    assert (second["review"], second["closed_at"]) == ("none", None)
    assert await connection.fetchval("SELECT count(*) FROM audit_log WHERE action = 'ApproveDataset' AND actor = 'alice'") == 1  # fmt: skip


async def test_approval_waits_for_the_cool_down_and_is_not_given_twice(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """An approved data set still keeps the cool-down, and a second approval names the first."""
    await waiting(bench, connection)
    await give(bench, ApproveDataset, model_type="recommendation")
    await connection.execute(
        "UPDATE thresholds SET updated_by = 'test', cool_down_seconds = 3600 WHERE model_type = 'recommendation'"
    )
    await bench.feed([doubtful(number) for number in range(600, 2_400)])
    await bench.check("recommendation")
    for _ in range(2):
        await give(bench, ApproveDataset, model_type="recommendation")
    told = (await answers(connection))[1:]
    assert [outcome for outcome, _ in told] == ["succeeded", "rejected"]
    assert "accepted by alice, cooling down" in told[0][1]
    assert "was approved by alice already" in told[1][1]
    assert len([one for one in await crossings(connection) if one.model_type == "recommendation"]) == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "spending"}, "spending epoch 1 does not wait for its quality: 0 of 1000"),
        ({"model_type": "recommendation", "epoch": 2}, "recommendation collects epoch 1, not 2"),
        ({"model_type": "recommendation", "reason": "  "}, "say why"),
        ({"model_type": "weather"}, "there is no model 'weather'"),
    ],
)
async def test_what_does_not_wait_for_its_quality_is_not_approved(
    bench: Bench, connection: asyncpg.Connection, fields: dict[str, Any], sentence: str
) -> None:
    """An approval in advance, of the wrong epoch or without a reason is rejected."""
    await waiting(bench, connection)
    await give(bench, ApproveDataset, **fields)
    ((outcome, detail),) = await answers(connection)
    assert outcome == "rejected"
    assert sentence in detail
    assert await connection.fetchval("SELECT count(*) FROM training_datasets WHERE review <> 'none'") == 0


# ---------------------------------------------------------------- quarantine


async def test_a_quarantined_data_set_never_crosses_and_the_next_begins_behind_it(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """Quarantined events neither train nor count towards the next epoch, and panes stay contiguous."""
    await send(bench, threshold=500, adaptive=False)
    await bench.feed([transaction(number) for number in range(300)])
    await bench.feed([transaction(number) for number in range(300, 350)], partition=1)
    await bench.check("spending")
    await give(bench, QuarantineDataset)
    outcome, detail = (await answers(connection))[-1]
    assert outcome == "succeeded"
    assert detail == (
        "spending epoch 1 is quarantined by alice: its 350 data points reach no further training; epoch 2 collects behind it"
    )
    await bench.feed([transaction(number) for number in range(350, 900)])
    await bench.check("spending")
    (crossing,) = [one for one in await crossings(connection) if one.model_type == "spending"]
    assert (crossing.epoch, crossing.counted, crossing.ranges) == (2, 550, (span(300, 850),))
    row = await dataset(connection, "spending", 1)
    assert ranges_in(row["quarantined_ranges"]) == [span(0, 300), span(0, 50, partition=1)]
    assert (row["review"], row["reviewed_by"], row["review_reason"]) == ("quarantined", "alice", "a bot")
    assert row["closed_at"] is not None
    assert await connection.fetchval("SELECT count(*) FROM epochs WHERE model_type = 'spending' AND epoch = 1") == 0
    entry = await connection.fetchrow("SELECT decision, sentence FROM threshold_evaluations WHERE model_type = 'spending' AND epoch = 1 ORDER BY evaluated_at DESC LIMIT 1")  # fmt: skip
    assert tuple(entry) == ("quarantined", "350 of 500, quarantined by alice (a bot): not trained")
    assert msgspec.json.decode(row["evaluation"])["sentence"] == entry["sentence"]
    assert await connection.fetchval("SELECT count(*) FROM audit_log WHERE action = 'QuarantineDataset'") == 1


async def test_other_models_keep_the_events_of_a_quarantined_data_set(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """A quarantine concerns only the model that it names."""
    await bench.feed([transaction(number) for number in range(300)])
    await give(bench, QuarantineDataset, model_type="segmentation")
    await bench.check("spending")
    assert (await dataset(connection, "spending", 1))["data_count"] == 300


async def test_a_closed_epoch_is_quarantined_by_its_number(bench: Bench, connection: asyncpg.Connection) -> None:
    """A closed data set can be quarantined later."""
    await send(bench, threshold=200, adaptive=False)
    await bench.feed([transaction(number) for number in range(200)])
    await bench.feed([transaction(number) for number in range(200, 250)])
    await bench.check("spending")
    await give(bench, QuarantineDataset, epoch=1)
    outcome, detail = (await answers(connection))[-1]
    assert outcome == "succeeded"
    assert detail.endswith("its training, which has not begun, will find nothing new")
    assert ranges_in((await dataset(connection, "spending", 1))["quarantined_ranges"]) == [span(0, 200)]
    untouched = await dataset(connection, "spending", 2)
    assert (untouched["review"], untouched["closed_at"], untouched["data_count"]) == ("none", None, 50)


async def test_a_training_that_has_begun_is_named_and_the_way_back_with_it(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """The answer names trainings that already began with the data set."""
    await send(bench, threshold=200, adaptive=False)
    await bench.feed([transaction(number) for number in range(200)])
    await bench.check("spending")
    run = await connection.fetchval("INSERT INTO model_training_events (model_type, epochs) VALUES ('spending', '{1}') RETURNING id")  # fmt: skip
    await give(bench, QuarantineDataset, epoch=1)
    raw = await connection.fetchval("SELECT payload FROM outbox WHERE topic = $1 ORDER BY id DESC LIMIT 1", CONTROL_RESULTS.name)  # fmt: skip
    answer = decode(CONTROL_RESULTS, raw)
    assert "1 training(s) began with it before" in answer.detail
    assert "`fincoach-learning rollback spending`" in answer.detail
    assert answer.result["trainings"] == [str(run)]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "spending has collected nothing in epoch 2 yet"),
        ({"epoch": 1}, "spending epoch 1 was quarantined by alice already"),
        ({"epoch": 9}, "spending has no data set of epoch 9"),
        ({"epoch": 10**11}, "the database cannot hold it"),
        ({"reason": ""}, "say why"),
    ],
)
async def test_what_cannot_be_quarantined_is_refused_with_a_sentence(
    bench: Bench, connection: asyncpg.Connection, fields: dict[str, Any], sentence: str
) -> None:
    """A quarantine that is not possible is rejected with the reason, and changes nothing."""
    await bench.feed([transaction(number) for number in range(300)])
    await bench.check("spending")
    await give(bench, QuarantineDataset)
    await give(bench, QuarantineDataset, **fields)
    outcome, detail = (await answers(connection))[-1]
    assert outcome == "rejected"
    assert sentence in detail
    assert await connection.fetchval("SELECT max(epoch) FROM training_datasets WHERE dataset_type = 'spending'") == 2


async def test_the_alert_about_single_users_ends_with_their_data_set(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """A quarantine clears the alert about single users."""
    await send(bench, threshold=500, adaptive=False)
    await bench.feed([transaction(number, users=1) for number in range(350)])
    await bench.check("spending")
    assert [type(alert).__name__ for alert in await alerts(connection)] == ["AlertRaised"]
    await give(bench, QuarantineDataset)
    assert [type(alert).__name__ for alert in await alerts(connection)] == ["AlertRaised", "AlertCleared"]


# ---------------------------------------------------------------- from the command line


@contextlib.asynccontextmanager
async def executing(bench: Bench, brokers: str) -> AsyncIterator[None]:
    """Execute commands from a real topic as a worker does, and publish the answers."""
    async with consuming(brokers, [CONTROL]) as consumer, producing(brokers) as producer:
        handler = CommandHandler(bench.database, bench.clock, executions_of(bench), models=FOUR_MODELS)

        async def run() -> None:
            while True:
                for record in await consumer.fetch(timeout_seconds=0.1):
                    await handler.handle(record)

        lives = [asyncio.create_task(run()), asyncio.create_task(OutboxRelay(bench.database, producer).run())]
        try:
            yield
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)


async def command(*arguments: str, folder: Path) -> Result:
    """Return the result of a command of the command line."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, [*arguments, "--folder", str(folder)]))


async def test_the_command_line_reviews_over_the_broker(
    bench: Bench, connection: asyncpg.Connection, own_broker: str, database_url: str, tmp_path: Path
) -> None:
    """Commands from the command line reach the service, and a rejection has a failing exit code."""
    await create_topics(own_broker, wide_partitions=1, topics=[topic for topic in TOPICS.values() if not topic.wide])
    save(tmp_path, Installation(
        database_url=database_url, brokers=own_broker, store_url="", keys_folder="", wide_partitions=1, processes=(),
    ))  # fmt: skip
    await waiting(bench, connection)
    await bench.feed([transaction(number) for number in range(300)], partition=1)
    await bench.check("spending")
    explained = await command("datasets", "explain", "recommendation", folder=tmp_path)
    assert "datasets approve recommendation --reason" in explained.stdout
    async with executing(bench, own_broker):
        approved = await command("datasets", "approve", "recommendation", "--reason", "looked at it", folder=tmp_path)
        quarantined = await command("datasets", "quarantine", "spending", "--reason", "a bot", "--json", folder=tmp_path)  # fmt: skip
        refused = await command("datasets", "quarantine", "spending", "--reason", "again", "--epoch", "1", folder=tmp_path)  # fmt: skip
    assert (approved.exit_code, quarantined.exit_code, refused.exit_code) == (0, 0, 1), (approved, quarantined, refused)
    assert "train" in " ".join(approved.stdout.split())
    told = msgspec.json.decode(quarantined.stdout)
    assert (told["epoch"], told["executor"]) == (1, "streams")
    assert "already" in " ".join(refused.stderr.split())
    explained = await command("datasets", "explain", "spending", "--epoch", "1", folder=tmp_path)
    assert "(a bot): not trained" in " ".join(explained.stdout.split())
    listed = await command("datasets", "spending", "--json", folder=tmp_path)
    assert {row["epoch"]: row["review"] for row in msgspec.json.decode(listed.stdout)} == {1: "quarantined", 2: "none"}
