"""Events from a real broker into a real database: what a worker archives, counts, rejects and survives."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from backends.clock import SystemClock
from modelkit.features import decode_state
from schemas.codec import encode
from schemas.messages.control import UpdateThresholds
from schemas.messages.predictions import PredictionServed
from schemas.topics import BEHAVIORAL_EVENTS, CONTROL, PREDICTIONS
from schemas.vocabulary import ArtifactKind
from streams.settings import StreamsSettings
from tests.integration.streams_workers import (
    Outgoing,
    WorkerProcess,
    begin_at_the_end,
    counted,
    holes,
    in_batches,
    outgoing,
    pane_sums,
    producing,
    running_worker,
    settings_for,
    start_worker_process,
    transaction,
    until,
    until_read,
    worker_process,
)
from tests.services import WIDE_PARTITIONS, connect


@pytest.fixture
async def settings(own_broker: str, database_url: str, tmp_path: Path) -> StreamsSettings:
    """Give the settings of a worker with a broker of its own, so that it executes no commands of other tests."""
    await begin_at_the_end(own_broker, database_url)
    return settings_for(own_broker, database_url, tmp_path)


async def test_a_producer_may_compress_as_it_likes(settings: StreamsSettings, database_url: str) -> None:
    """A worker reads every compression codec of Kafka."""
    codecs = ("gzip", "snappy", "lz4", "zstd")
    for number, codec in enumerate(codecs):
        producer = AIOKafkaProducer(bootstrap_servers=settings.brokers, compression_type=codec)
        await producer.start()
        topic, key, value, _ = outgoing(transaction(number, merchant="the same again " * 10))
        await producer.send_and_wait(topic, value, key)
        await producer.stop()
    async with running_worker(settings):
        connection = await connect(database_url)
        await until_read(connection, len(codecs))
        assert (await pane_sums(connection))["archived"] == len(codecs)
        await connection.close()


async def test_good_and_bad_records_balance(settings: StreamsSettings, database_url: str) -> None:
    """Good, bad and repeated records each end where they belong, exactly once."""
    good = [transaction(number) for number in range(300)]
    future = transaction(900, occurred_at=SystemClock().now() + dt.timedelta(hours=2))
    bad = [
        outgoing(good[0], raw=b"not json"),
        outgoing(good[0], raw=b'{"event_type":"transaction_creation"}'),
        outgoing(good[0], raw=b'{"event_type":"dance"}'),
        outgoing(good[0], raw=b'{"event_type":"page_view","x":"' + b"y" * 2_000_000 + b'"}'),
        outgoing(future),
        (BEHAVIORAL_EVENTS.name, b"somebody else", outgoing(good[1])[2], {}),
        outgoing(transaction(901, category="\0")),
    ]
    silent = transaction(902, consent=False)
    records = [outgoing(event) for event in good] + bad + [outgoing(event) for event in good[:40]] + [outgoing(silent)]
    async with producing(settings.brokers) as producer:
        await producer.publish_batch(records[:200])
        async with running_worker(settings):
            connection = await connect(database_url)
            await producer.publish_batch(records[200:])
            await until_read(connection, len(records))
            sums = await pane_sums(connection)
            reasons = dict(await connection.fetch("SELECT reason, count(*) FROM dead_letters GROUP BY 1"))
            archived = await connection.fetchval("SELECT count(*) FROM behavioral_events")
            users = await connection.fetchval("SELECT count(*) FROM user_states")
            announced = await connection.fetchval("SELECT count(*) FROM outbox WHERE topic = 'fincoach.dead-letters'")
            assert sums == {
                "records": len(records), "archived": 301, "duplicates": 40, "dead_lettered": 7, "not_consented": 1,
            }  # fmt: skip
            assert reasons == {
                "not_json": 1, "missing_field": 1, "unknown_type": 1, "too_large": 1, "in_the_future": 1, "key_mismatch": 1,
                "invalid_field": 1,
            }  # fmt: skip
            assert (archived, users, announced) == (301, 50, 7)
            assert await counted(connection, "spending") == 300
            assert await counted(connection, "spending", "duplicates") == 40
            assert await holes(connection) == 0
            await connection.close()


async def test_predictions_are_archived_once(settings: StreamsSettings, database_url: str) -> None:
    """A prediction is archived once and does not count as data."""
    served = [prediction(number) for number in range(20)]
    records: list[Outgoing] = [(PREDICTIONS.name, str(one.user_id).encode(), encode(one), {}) for one in served]
    broken: Outgoing = (PREDICTIONS.name, records[0][1], b'{"type":"PredictionServed"}', {})
    async with producing(settings.brokers) as producer, running_worker(settings):
        connection = await connect(database_url)
        await producer.publish_batch([*records, broken, *records[:5]])
        await until_read(connection, 26, topic=PREDICTIONS.name)
        archived = await connection.fetchval("SELECT count(*) FROM predictions")
        row = await connection.fetchrow("SELECT * FROM predictions WHERE prediction_id = $1", served[3].event_id)
        pane = await connection.fetchrow(
            "SELECT sum(archived) AS a, sum(duplicates) AS d, sum(dead_lettered) AS x FROM panes"
        )
        states = await connection.fetchval("SELECT count(*) FROM user_states")
        await connection.close()
    assert archived == 20
    assert (row["action"], row["propensity"], row["kind"]) == (3, 0.25, "baseline")
    assert tuple(pane) == (20, 5, 1)
    assert states == 0


def prediction(number: int) -> PredictionServed:
    """Return answer ``number`` of a replica."""
    return PredictionServed(
        event_id=uuid.uuid5(uuid.NAMESPACE_OID, f"prediction-{number}"),
        occurred_at=dt.datetime(2026, 1, 5, 12, number, tzinfo=dt.UTC),
        replica_id="replica-1",
        user_id=uuid.uuid5(uuid.NAMESPACE_OID, f"user-{number}"),
        model_type="recommendation",
        version="0.0.0",
        artifact_digest="0" * 64,
        kind=ArtifactKind.BASELINE,
        as_of=dt.datetime(2026, 1, 5, 12, number, tzinfo=dt.UTC),
        reducer_version=1,
        features=(1.0, 2.0),
        answer={"action_id": number % 5},
        latency_ms=0.4,
        action_set="fincoach-5",
        action=number % 5,
        propensity=0.25,
    )


async def test_a_restarted_worker_goes_on_where_the_ledger_stands(settings: StreamsSettings, database_url: str) -> None:
    """A second worker continues where the first stopped."""
    records = [outgoing(transaction(number)) for number in range(600)]
    connection = await connect(database_url)
    async with producing(settings.brokers) as producer:
        await producer.publish_batch(records[:400])
        async with running_worker(settings):
            await until_read(connection, 400)
        await producer.publish_batch(records[400:] + records[:10])
        async with running_worker(settings):
            await until_read(connection, 610)
    sums = await pane_sums(connection)
    transactions = await state_transactions(connection)
    assert (sums["archived"], sums["duplicates"]) == (600, 10)
    assert await counted(connection, "segmentation") == 50
    assert transactions == 600
    assert await holes(connection) == 0
    await connection.close()


async def state_transactions(connection: asyncpg.Connection) -> int:
    """Return the transactions in all user states."""
    rows = await connection.fetch("SELECT state FROM user_states")
    return sum(decode_state(row["state"]).transactions for row in rows)


async def test_a_ledger_ahead_of_its_topic_stops_the_worker(settings: StreamsSettings, database_url: str) -> None:
    """A worker whose ledger is ahead of the topic stops with an error."""
    connection = await connect(database_url)
    await connection.execute("UPDATE ledger SET next_offset = next_offset + 1000 WHERE partition = 2")
    await connection.close()
    process = start_worker_process(settings, name="ahead")
    try:
        status = await asyncio.to_thread(process.process.wait, 60)
    finally:
        process.kill()
    assert status == 1
    assert "created anew" in process.log.read_text()


async def test_exact_after_kills(settings: StreamsSettings, database_url: str) -> None:
    """Killed workers neither lose nor repeat work."""
    total, repeated = 6_000, 300
    records = [outgoing(transaction(number, users=200)) for number in range(total)]
    records += records[:repeated]
    small = settings.model_copy(update={"batch_records": 100})
    connection = await connect(database_url)
    async with producing(settings.brokers) as producer:
        for part in in_batches(records, 1_000):
            await producer.publish_batch(part)
    kills = 0
    for round_number in range(20):
        target = (round_number + 1) * len(records) // 4
        with worker_process(small, name=f"worker-{round_number}"):
            await until_read(connection, min(target, len(records)))
        if target >= len(records):
            break
        kills += 1
    sums = await pane_sums(connection)
    assert kills >= 3
    assert (sums["archived"], sums["duplicates"], sums["records"]) == (total, repeated, total + repeated)
    assert await connection.fetchval("SELECT count(DISTINCT event_id) FROM behavioral_events") == total
    assert await counted(connection, "spending") == total
    assert await counted(connection, "segmentation") == 200
    assert await state_transactions(connection) == total
    assert await holes(connection) == 0
    await connection.close()


async def test_a_worker_process_shows_itself_and_stops_quickly(settings: StreamsSettings, database_url: str) -> None:
    """A worker shows its readiness and its facts, and stops on request."""
    connection = await connect(database_url)
    with worker_process(settings, name="shown") as process:

        async def ready() -> bool:
            with contextlib.suppress(OSError):
                return (await asyncio.to_thread(process.get, "/health/ready"))[0] == 200
            return False

        await until(ready, what="readiness")
        async with producing(settings.brokers) as producer:
            await producer.publish_batch([outgoing(transaction(number)) for number in range(40)])
        await until_read(connection, 40)
        await until(shows(process, epoch=1, counted=40), what="the live view of 40 transactions")
        await until(lambda: has_taken(connection, 40), what="40 transactions in the data set")
        async with producing(settings.brokers) as producer:
            await producer.publish(CONTROL.name, b"spending", encode(lower_threshold(to=30)))
        await until(shows(process, epoch=2, counted=0), what="the live view of the next epoch")
        answer = await connection.fetchrow("SELECT outcome, detail FROM command_inbox")
        facts = await facts_of(process)
        metrics = (await asyncio.to_thread(process.get, "/metrics"))[1].decode()
        process.process.terminate()
        status = await asyncio.to_thread(process.process.wait, 10)
    await connection.close()
    assert status == 0, process.log.read_text()
    assert tuple(answer) == ("succeeded", "spending: threshold 30; 40 of 30, quality 1.00: train")
    assert len(facts["partitions"]) == 2 * WIDE_PARTITIONS
    assert 'fincoach_streams_records_total{outcome="archived",topic="fincoach.behavioral-events"} 40.0' in metrics


async def has_taken(connection: asyncpg.Connection, number: int) -> bool:
    """Return whether spending's first data set holds ``number`` transactions; its live view may be ahead of it."""
    query = "SELECT data_count FROM training_datasets WHERE dataset_type = 'spending' AND epoch = 1"
    return bool(await connection.fetchval(query) == number)


async def facts_of(process: WorkerProcess) -> dict[str, Any]:
    """Return the facts that a worker reports."""
    answer = await asyncio.to_thread(process.get, "/health/ready")
    facts: dict[str, Any] = msgspec.json.decode(answer[1])["facts"]
    return facts


def shows(process: WorkerProcess, *, epoch: int, counted: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that the worker's live view of spending has reached these values."""

    async def stands() -> bool:
        spending = (await facts_of(process))["datasets"].get("spending", {})
        return (spending.get("epoch"), spending.get("counted")) == (epoch, counted)

    return stands


def lower_threshold(*, to: int) -> UpdateThresholds:
    """Return a command that expires within seconds, because other tests share the topic."""
    now = SystemClock().now()
    return UpdateThresholds(
        event_id=uuid.uuid4(), occurred_at=now, issuer="tester", expires_at=now + dt.timedelta(seconds=20),
        model_type="spending", threshold=to,
    )  # fmt: skip


@pytest.mark.expects_errors("batch_failed")
async def test_a_bug_stops_the_worker(
    settings: StreamsSettings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a batch ends the worker, and the batch stays uncommitted."""

    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError("planted")

    monkeypatch.setattr("streams.batches.events.close_pane", broken)
    connection = await connect(database_url)
    async with producing(settings.brokers) as producer, running_worker(settings) as worker:
        await producer.publish_batch([outgoing(transaction(1))])
        with pytest.raises(ArithmeticError):
            await asyncio.wait_for(asyncio.shield(worker.reader.failure), timeout=30)
    assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 0
    await connection.close()
