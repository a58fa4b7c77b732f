"""Data sets on a real database: panes form epochs, quality can block them, and commands change the rule."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import Any

import asyncpg
import msgspec
import pytest

from backends.database.repositories.ingestion import EVENTS, IngestionRepository, begun_driver
from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    TransactionCreated,
    encode_event,
)
from modelkit.features import REDUCER_VERSION, UserState, decode_state, encode_state, fold
from schemas.topics import BEHAVIORAL_EVENTS
from streams.batches.batch import LostCompareError
from streams.batches.intake import microseconds
from streams.epochs.collecting import PaneGapError
from tests.four_models import FOUR_MODELS
from tests.integration.streams_bench import Bench, answers, crossings, feedback, send
from tests.integration.streams_workers import transaction


async def test_an_epoch_is_closed_once(bench: Bench, connection: asyncpg.Connection) -> None:
    """Concurrent evaluations close an epoch once, with its exact ranges."""
    for start in range(0, 1_200, 100):
        await bench.feed([transaction(number) for number in range(start, start + 100)])
    await asyncio.gather(*(bench.check("spending") for _ in range(3)))
    await bench.check("spending")
    announced = [one for one in await crossings(connection) if one.model_type == "spending"]
    assert [(one.epoch, one.counted, one.ranges[0].from_offset, one.ranges[0].to_offset) for one in announced] == [
        (1, 1_000, 0, 1_000)
    ]
    rows = await connection.fetch("SELECT * FROM training_datasets WHERE dataset_type = 'spending' ORDER BY epoch")
    assert [(row["epoch"], row["data_count"], row["is_ready_for_training"]) for row in rows] == [
        (1, 1_000, True), (2, 200, False),
    ]  # fmt: skip
    assert rows[1]["last_training_date"] is not None
    quality = await connection.fetchrow(
        "SELECT * FROM data_quality_metrics WHERE training_dataset_id = $1", rows[0]["id"]
    )
    assert quality["overall_score"] >= 0.8
    epoch = await connection.fetchrow("SELECT * FROM epochs WHERE model_type = 'spending'")
    assert (epoch["event_id"], epoch["training_dataset_id"]) == (announced[0].event_id, rows[0]["id"])


async def test_a_burst_makes_epochs_of_whole_panes(bench: Bench, connection: asyncpg.Connection) -> None:
    """Consecutive epochs consist of whole panes and leave no gap."""
    await send(bench, adaptive=False)
    for start in range(0, 5_000, 700):
        await bench.feed([transaction(number) for number in range(start, start + 700)], partition=start // 700 % 2)
    await bench.check("spending")
    announced = [one for one in await crossings(connection) if one.model_type == "spending"]
    assert [one.counted for one in announced] == [1_400, 1_400, 1_400, 1_400]
    panes = {(row["partition"], row["to_offset"]) for row in await connection.fetch("SELECT * FROM panes")}
    ends = [(span.partition, span.to_offset) for one in announced for span in one.ranges]
    assert set(ends) <= panes
    for partition in (0, 1):
        spans = [span for one in announced for span in one.ranges if span.partition == partition]
        assert [span.from_offset for span in spans[1:]] == [span.to_offset for span in spans[:-1]]


async def test_rubbish_does_not_train(bench: Bench, connection: asyncpg.Connection) -> None:
    """A data set of poor quality waits in spite of its count."""
    await bench.feed([feedback(number) for number in range(600)])
    await bench.feed([transaction(1)] * 400, raw=b'{"event_type":"recommendation_interaction","user_id":1}')
    sentence = await bench.check("recommendation")
    again = await bench.check("recommendation")
    assert sentence == again
    assert sentence.startswith("600 of 500, quality 0.")
    assert sentence.endswith("waiting")
    row = await connection.fetchrow("SELECT * FROM training_datasets WHERE dataset_type = 'recommendation'")
    assert (row["threshold_reached"], row["is_ready_for_training"], row["data_count"]) == (True, False, 600)
    stored = await connection.fetch("SELECT decision FROM threshold_evaluations WHERE model_type = 'recommendation'")
    assert [found["decision"] for found in stored] == ["waiting_for_quality"]
    assert await crossings(connection) == []


async def test_a_bot_does_not_push_a_threshold(bench: Bench, connection: asyncpg.Connection) -> None:
    """A single user's events do not trigger a training."""
    bot = uuid.uuid4()
    await bench.feed([feedback(number, user_id=bot) for number in range(5_000)])
    alone = await bench.check("recommendation")
    assert alone.startswith("250 of 500 (5000 counted, 4750 beyond 250 a user)")
    await bench.feed([feedback(number) for number in range(5_000, 5_400)])
    with_others = await bench.check("recommendation")
    assert with_others.startswith("436 of 500 (5400 counted, 4964 beyond 36 a user)")
    assert await crossings(connection) == []
    row = await connection.fetchrow("SELECT * FROM training_datasets WHERE dataset_type = 'recommendation'")
    assert (row["data_count"], row["threshold_reached"]) == (5_400, False)


async def test_goals_and_answers_count_as_the_plan_says(bench: Bench) -> None:
    """Each model counts its own events, and only those that count."""
    goals = [goal(number, step) for number in range(30) for step in ("create", "update", "achieve")]
    answers = [
        feedback(number, interaction_type="view" if number % 2 else "click", prediction_id=uuid.uuid4())
        for number in range(20)
    ]
    await bench.feed([*goals, *answers])
    await bench.check("goal")
    live = {model: (await bench.service.live_dataset(model)).counts for model in FOUR_MODELS}
    assert (live["goal"].counted, live["goal"].relevant) == (30, 90)
    assert live["goal"].inconsistent == 0
    assert (live["recommendation"].counted, live["recommendation"].relevant) == (10, 20)
    assert live["spending"].relevant == 0


def goal(number: int, step: str) -> GoalModified:
    """Return step ``step`` of a goal."""
    order = ("create", "update", "achieve").index(step)
    return GoalModified(
        event_id=uuid.uuid5(uuid.NAMESPACE_OID, f"goal-{number}-{step}"),
        user_id=uuid.uuid5(uuid.NAMESPACE_OID, f"user-{number}"),
        occurred_at=dt.datetime(2026, 1, 5, tzinfo=dt.UTC) + dt.timedelta(days=order),
        consent=True,
        goal_id=f"goal-{number}",
        interaction_type=step,  # type: ignore[arg-type]
        goal_kind="budget",
        target_minor=10_000,
        currency="USD",
    )


async def test_a_missing_pane_is_noticed(bench: Bench, connection: asyncpg.Connection) -> None:
    """A missing pane raises an error."""
    for start in range(0, 400, 100):
        await bench.feed([transaction(number) for number in range(start, start + 100)])
        await bench.check("spending") if start == 0 else None
    await connection.execute("DELETE FROM panes WHERE from_offset = 200")
    with pytest.raises(PaneGapError):
        await bench.check("spending")


async def test_a_lost_compare_writes_nothing(bench: Bench, connection: asyncpg.Connection) -> None:
    """A batch behind the ledger is dropped and writes nothing."""
    await bench.feed([transaction(number) for number in range(10)])
    await connection.execute("UPDATE ledger SET next_offset = 50")
    with pytest.raises(LostCompareError):
        await bench.feed([transaction(number) for number in range(10, 20)])
    assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 10
    assert await connection.fetchval("SELECT count(*) FROM panes") == 1


async def test_what_the_database_cannot_hold_is_isolated(bench: Bench, connection: asyncpg.Connection) -> None:
    """An event that the database rejects becomes a dead letter."""
    deep: dict[str, Any] = {"a": 1}
    for _ in range(400):
        deep = {"a": deep}
    half = encode_event(transaction(7)).replace(b'"dine_out"', b'"\\ud800x"')
    endless = encode_event(transaction(7, additional_data={"n": 1})).replace(b'"n":1', b'"n":1e200000')
    await bench.feed([transaction(number) for number in range(7)])
    for raw in (half, endless):
        outcome = await bench.feed([transaction(7)], raw=raw)
        assert (outcome.archived, outcome.dead_lettered) == (0, 1)
    outcome = await bench.feed([transaction(8), transaction(9, additional_data={"deep": deep})])
    assert outcome.archived == 2
    reasons = await connection.fetch("SELECT reason FROM dead_letters ORDER BY id")
    assert {row["reason"] for row in reasons} <= {"not_json", "invalid_field"}


async def test_a_refused_row_is_found_among_many(bench: Bench, connection: asyncpg.Connection) -> None:
    """If the database rejects one row, the others of the batch are archived."""
    events = [transaction(number) for number in range(200)]
    rows = [row_of(number, event) for number, event in enumerate(events)]
    rows[123] = (*rows[123][:7], b"{broken", *rows[123][8:])
    async with bench.database.transaction() as work:
        await begun_driver(work)
        archived = await IngestionRepository(work, BEHAVIORAL_EVENTS, 0).archive(EVENTS, rows)
    assert set(archived.refused) == {123}
    assert "json" in archived.refused[123]
    assert len(archived.new) == 199
    assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 199


def row_of(offset: int, event: TransactionCreated) -> tuple[Any, ...]:
    """Return ``event`` as a row of the archive."""
    return (
        event.event_id.bytes, microseconds(event.occurred_at), event.user_id.bytes, "transaction_creation", "create", True,
        "host", encode_event(event), 1, 0, offset,
    )  # fmt: skip


async def test_an_event_that_breaks_the_reducer_is_put_aside(
    bench: Bench, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event on which the reducer fails becomes a dead letter, and others are folded."""

    def failing(state: UserState | None, event: AnyBehavioralEvent, *, at: int | None = None) -> UserState:
        if isinstance(event, TransactionCreated) and event.amount_minor == 666:
            state = fold(state, event, at=at)  # leaves its mark, then fails
            raise ArithmeticError("planted")
        return fold(state, event, at=at)

    monkeypatch.setattr("streams.batches.folding.fold", failing)
    events = [transaction(number, users=3) for number in range(30)]
    events[14] = transaction(14, users=3, amount_minor=666)
    outcome = await bench.feed(events)
    assert (outcome.archived, outcome.dead_lettered) == (29, 1)
    assert await connection.fetchval("SELECT reason FROM dead_letters") == "reducer_error"
    assert await connection.fetchval("SELECT count(*) FROM behavioral_events") == 29
    rows = await connection.fetch("SELECT state FROM user_states")
    assert sum(decode_state(row["state"]).transactions for row in rows) == 29


async def test_states_of_an_older_reducer_are_folded_anew(
    bench: Bench, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States of an old reducer version are folded anew, without events that the current code rejects."""
    monkeypatch.setattr("backends.database.repositories.ingestion.PAGE_ROWS", 7)
    events = [transaction(number, users=2) for number in range(22)]
    await bench.feed(events[:20])
    await connection.execute("UPDATE user_states SET reducer_version = 0, state = 'broken'")
    await connection.execute(
        "UPDATE behavioral_events SET payload = payload - 'currency' WHERE event_id = $1", events[11].event_id
    )
    bench.forget_states()
    await bench.feed(events[20:])
    expected: dict[uuid.UUID, UserState] = {}
    for event in [*events[:11], *events[12:]]:
        expected[event.user_id] = fold(expected.get(event.user_id), event)
    rows = await connection.fetch("SELECT user_id, reducer_version, state FROM user_states")
    assert {row["user_id"]: row["state"] for row in rows} == {
        user_id: encode_state(state) for user_id, state in expected.items()
    }
    assert {row["reducer_version"] for row in rows} == {REDUCER_VERSION}


async def test_a_lower_threshold_is_looked_at_at_once(bench: Bench, connection: asyncpg.Connection) -> None:
    """A changed threshold takes effect at once, in all places."""
    await bench.feed([transaction(number) for number in range(300)])
    await bench.check("spending")
    await send(bench, threshold=250)
    assert [one.counted for one in await crossings(connection) if one.model_type == "spending"] == [300]
    rule = await connection.fetchrow("SELECT threshold, updated_by FROM thresholds WHERE model_type = 'spending'")
    assert tuple(rule) == (250, "tester")
    shown = await connection.fetch("SELECT threshold FROM training_datasets WHERE dataset_type = 'spending'")
    assert [row["threshold"] for row in shown] == [250, 250]
    assert (await answers(connection))[0][0] == "succeeded"
    assert await connection.fetchval("SELECT count(*) FROM audit_log WHERE action = 'UpdateThresholds'") == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"threshold": -1}, "give a number from 1"),
        ({"quality_gate": 1.5}, "give a number from 0 to 1"),
        ({"cool_down_seconds": -5}, "cool-down"),
        ({}, "nothing to change"),
        ({"model_type": "weather", "threshold": 5}, "no model 'weather'"),
    ],
)
async def test_wrong_rules_are_refused_with_a_sentence(
    bench: Bench, connection: asyncpg.Connection, fields: dict[str, Any], expected: str
) -> None:
    """A rule that could never hold, or always would, is rejected."""
    await send(bench, **fields)
    outcome, detail = (await answers(connection))[0]
    assert outcome == "rejected"
    assert expected in detail
    assert await connection.fetchval("SELECT threshold FROM thresholds WHERE model_type = 'spending'") == 1_000


async def test_cool_down_holds_back_and_then_lets_go(bench: Bench, connection: asyncpg.Connection) -> None:
    """No crossing happens within the cool-down, and the next one after it."""
    await send(bench, threshold=100, cool_down_seconds=3_600)
    await bench.feed([transaction(number) for number in range(150)])
    await bench.check("spending")
    await bench.feed([transaction(number) for number in range(150, 300)])
    assert "cooling down" in await bench.check("spending")
    await connection.execute("UPDATE epochs SET reached_at = reached_at - interval '2 hours'")
    await bench.check("spending")
    assert [one.counted for one in await crossings(connection) if one.model_type == "spending"] == [150, 150]


async def test_the_live_view_agrees_with_the_panes(bench: Bench, connection: asyncpg.Connection) -> None:
    """The live data set equals the sum of the panes."""
    for start in range(0, 300, 100):
        await bench.feed([transaction(number) for number in range(start, start + 100)])
        if start == 100:
            await bench.check("spending")
    live = await bench.service.live_dataset("spending")
    rows = await connection.fetch("SELECT counts FROM panes")
    assert live.counts.counted == sum(msgspec.json.decode(row["counts"])["spending"]["counted"] for row in rows) == 300
    assert live.through == {0: 300}
