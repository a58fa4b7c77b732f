"""Adaptive thresholds on a real database: their factors are measured, recorded and reported."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid

import asyncpg
import msgspec
import pytest

from fincoach_events.events import GoalModified
from schemas.messages.alerts import AlertCleared, AlertRaised
from tests.integration.streams_bench import Bench, alerts, answers, crossings, feedback, send
from tests.integration.streams_workers import EVENT_TIME, transaction


async def spend(bench: Bench, start: int, number: int, *, amount_minor: int = 1_500) -> None:
    """Feed ``number`` transactions in batches of a hundred."""
    for first in range(start, start + number, 100):
        await bench.feed(
            [transaction(each, amount_minor=amount_minor + each % 100) for each in range(first, first + 100)]
        )


async def factors(connection: asyncpg.Connection, model_type: str = "spending") -> dict[str, object]:
    """Return the factors of the open data set's newest evaluation."""
    raw = await connection.fetchval(
        "SELECT evaluation -> 'factors' FROM training_datasets WHERE dataset_type = $1 AND closed_at IS NULL",
        model_type,
    )
    found: dict[str, object] = msgspec.json.decode(raw)
    return found


async def test_a_model_that_knows_much_waits_for_more(bench: Bench, connection: asyncpg.Connection) -> None:
    """The threshold grows with the data that the model has learned from."""
    await send(bench, threshold=400)
    await spend(bench, 0, 2_100)
    await bench.check("spending")
    told = [(one.counted, one.threshold) for one in await crossings(connection) if one.model_type == "spending"]
    assert told == [(400, 400), (400, 400), (600, 566)]
    seen = await factors(connection)
    assert (seen["learned"], seen["first"], seen["size"]) == (1_400, 400, pytest.approx(3.5**0.5))
    stored = await connection.fetch(
        "SELECT factors FROM threshold_evaluations WHERE decision = 'fired' ORDER BY evaluated_at"
    )
    assert [msgspec.json.decode(row["factors"])["configured"] for row in stored] == [400, 400, 400]


async def test_what_a_person_quarantined_was_not_learned(bench: Bench, connection: asyncpg.Connection) -> None:
    """Quarantined epochs do not raise the threshold."""
    await send(bench, threshold=400)
    await spend(bench, 0, 1_200)
    await bench.check("spending")
    assert (await factors(connection))["learned"] == 800
    await connection.execute(
        "UPDATE training_datasets SET review = 'quarantined' WHERE dataset_type = 'spending' AND epoch = 1"
    )
    await bench.feed([transaction(2_000)])
    await bench.check("spending")
    told = [(one.counted, one.threshold) for one in await crossings(connection)]
    assert told == [(400, 400)] * 3


async def test_drift_brings_a_training_forward(bench: Bench, connection: asyncpg.Connection) -> None:
    """Drift lowers the threshold."""
    await send(bench, threshold=400)
    await spend(bench, 0, 400)
    await bench.check("spending")
    await spend(bench, 400, 300, amount_minor=900_000)
    sentence = await bench.check("spending")
    assert [one.counted for one in await crossings(connection)] == [400, 200]
    assert sentence.startswith("100 of ")
    fired = await connection.fetchval(
        "SELECT factors FROM threshold_evaluations WHERE decision = 'fired' AND epoch = 2"
    )
    assert msgspec.json.decode(fired)["psi"] > 1


async def test_the_cost_of_trainings_is_measured(bench: Bench, connection: asyncpg.Connection) -> None:
    """A costlier training raises the threshold."""
    now = bench.clock.now()
    for number, seconds in enumerate([10] * 5 + [40] * 5):
        at = now + dt.timedelta(minutes=number)
        await connection.execute(
            "INSERT INTO model_training_events (model_type, status, start_time, end_time, created_at)"
            " VALUES ('spending', 'completed', $1, $2, $1)", at, at + dt.timedelta(seconds=seconds),
        )  # fmt: skip
    await spend(bench, 0, 100)
    sentence = await bench.check("spending")
    assert sentence.startswith("100 of 2000 (1000 adapted: ")
    seen = await factors(connection)
    assert (seen["cost_seconds"], seen["first_cost_seconds"], seen["cost"]) == (40, 10, 2)


async def test_arrivals_are_kept_by_hour_of_the_week(bench: Bench, connection: asyncpg.Connection) -> None:
    """Arrivals are averaged by hour of the week, and each is counted once."""
    await spend(bench, 0, 600)
    last_monday = (await connection.fetchval("SELECT date_trunc('week', now() AT TIME ZONE 'UTC')")).replace(
        tzinfo=dt.UTC
    )
    for number in range(6):
        at = last_monday - dt.timedelta(days=21 - 7 * (number // 2), hours=-(number % 2) * 100)
        await connection.execute("UPDATE panes SET closed_at = $1 WHERE from_offset = $2", at, number * 100)
    await bench.check("spending")
    row = await connection.fetchrow("SELECT * FROM arrival_patterns WHERE model_type = 'spending'")
    busy = {hour: rate for hour, rate in enumerate(row["rates"]) if rate}
    assert (busy, row["hours"], row["current_count"]) == ({0: 100, 100: 100}, 436, 100)
    assert row["current_hour"] == last_monday - dt.timedelta(days=7) + dt.timedelta(hours=100)
    await bench.feed([transaction(1_000)])
    await bench.check("spending")
    assert (await factors(connection))["arrivals_ratio"] is not None
    again = await connection.fetchrow("SELECT * FROM arrival_patterns WHERE model_type = 'spending'")
    assert again["current_count"] == 1


async def test_an_old_data_set_fires_with_less(bench: Bench, connection: asyncpg.Connection) -> None:
    """A data set at its maximum age is evaluated and trained on less data."""
    await spend(bench, 0, 300)
    await bench.check("spending")
    assert "spending" not in await bench.service.due_models()
    await connection.execute("UPDATE training_datasets SET created_at = now() - interval '31 days'")
    assert "spending" in await bench.service.due_models()
    await bench.check("spending")
    assert [(one.counted, one.threshold) for one in await crossings(connection)] == [(300, 200)]


async def test_nothing_fires_in_a_blackout(bench: Bench, connection: asyncpg.Connection) -> None:
    """A crossing waits for the end of a blackout."""
    now = (await connection.fetchval("SELECT now()")).astimezone(dt.UTC)
    days = f"{now:%a}-{now + dt.timedelta(days=1):%a} 00:00-24:00"
    await send(bench, threshold=100, blackouts=(days,))
    await spend(bench, 0, 100)
    assert f"no training in {days} UTC" in await bench.check("spending")
    assert "spending" not in await bench.service.due_models()
    await send(bench, blackouts=())
    assert [one.counted for one in await crossings(connection)] == [100]


@pytest.mark.parametrize("review", ["approved", "quarantined"])
async def test_a_persons_word_counts(bench: Bench, connection: asyncpg.Connection, review: str) -> None:
    """An approved data set fires in spite of its quality, and a quarantined one never fires."""
    await bench.feed([feedback(number) for number in range(600)])
    await bench.feed([transaction(1)] * 600, raw=b'{"event_type":"recommendation_interaction","user_id":1}')
    assert "waiting" in await bench.check("recommendation")
    await connection.execute("UPDATE training_datasets SET review = $1, reviewed_by = 'alice'", review)
    await bench.feed([feedback(number) for number in range(600, 700)])
    await bench.check("recommendation")
    fired = await crossings(connection)
    rows = await connection.fetch(
        "SELECT sentence FROM threshold_evaluations WHERE model_type = 'recommendation' ORDER BY evaluated_at"
    )
    if review == "approved":
        assert [one.counted for one in fired] == [600]
        assert rows[1]["sentence"].endswith("accepted by alice: train")
    else:
        assert fired == []
        assert rows[1]["sentence"].endswith("quarantined by alice: not trained")


async def test_a_capped_user_is_told_once_in_an_epoch(bench: Bench, connection: asyncpg.Connection) -> None:
    """The alert about a dominating user is raised once and cleared when the epoch closes."""
    bot = uuid.uuid4()
    for start in range(0, 3_000, 1_000):
        await bench.feed([feedback(number, user_id=bot) for number in range(start, start + 1_000)])
        await bench.check("recommendation")
    raised = await alerts(connection)
    assert [(type(one), one.name, one.subject) for one in raised] == [
        (AlertRaised, "user_share_capped", "recommendation")
    ]
    assert str(bot) not in str(raised)
    assert raised[0].facts["withheld"] == 750
    await bench.feed([feedback(n, prediction_id=uuid.uuid4()) for n in range(3_000, 3_600)])
    await bench.check("recommendation")
    assert [one.counted for one in await crossings(connection)] == []  # the bot's unlinked answers: poor quality
    await connection.execute("UPDATE training_datasets SET review = 'approved', reviewed_by = 'alice'")
    await bench.check("recommendation")
    assert [type(one) for one in await alerts(connection)] == [AlertRaised, AlertCleared]


async def test_a_long_wait_is_written_down_once(bench: Bench, connection: asyncpg.Connection) -> None:
    """The history records only evaluations that differ notably."""
    for start in range(0, 900, 50):
        await bench.feed([transaction(number) for number in range(start, start + 50)])
        await bench.check("spending")
    rows = await connection.fetch("SELECT decision FROM threshold_evaluations WHERE model_type = 'spending'")
    assert [row["decision"] for row in rows] == ["waiting_for_count"]
    shown = await connection.fetchval(
        "SELECT evaluation ->> 'sentence' FROM training_datasets WHERE dataset_type = 'spending'"
    )
    assert shown.startswith("900 of 1000, ")


async def test_a_data_set_that_cannot_fire_is_left_to_gather(bench: Bench, connection: asyncpg.Connection) -> None:
    """A data set far from its threshold is not evaluated with every pane."""
    await send(bench, adaptive=False)
    await bench.feed([transaction(number) for number in range(100)])
    await bench.check("spending")
    await bench.feed([transaction(number) for number in range(100, 400)])
    assert "spending" not in await bench.service.due_models()
    await bench.feed([transaction(number) for number in range(400, 800)])
    assert "spending" in await bench.service.due_models()
    await bench.check("spending")
    assert "spending" not in await bench.service.due_models()
    await bench.feed([transaction(801)])
    await connection.execute("UPDATE training_datasets SET updated_at = now() - interval '2 seconds'")
    assert "spending" in await bench.service.due_models()


async def test_a_burst_of_goals_coalesces(bench: Bench, connection: asyncpg.Connection) -> None:
    """A burst of data leads to one crossing per cool-down."""
    for start in range(0, 2_000, 100):
        await bench.feed([step for number in range(start, start + 100) for step in course(number)])
        await bench.check("goal")
    assert [one.counted for one in await crossings(connection)] == [100]
    assert ", cooling down for " in await bench.check("goal")
    assert "goal" not in await bench.service.due_models()
    await connection.execute("UPDATE epochs SET reached_at = reached_at - interval '5 minutes'")
    assert "goal" in await bench.service.due_models()
    await bench.check("goal")
    assert [one.counted for one in await crossings(connection)] == [100, 1_900]


def course(number: int) -> list[GoalModified]:
    """Return the creation and the end of a goal, achieved or failed."""
    begun = GoalModified(
        event_id=uuid.uuid5(uuid.NAMESPACE_OID, f"begun-{number}"), user_id=uuid.uuid5(uuid.NAMESPACE_OID, f"student-{number}"),
        occurred_at=EVENT_TIME, consent=True, goal_id=f"goal-{number}", interaction_type="create", goal_kind="course",
    )  # fmt: skip
    ended = msgspec.structs.replace(
        begun, event_id=uuid.uuid5(uuid.NAMESPACE_OID, f"ended-{number}"), occurred_at=EVENT_TIME + dt.timedelta(days=9),
        interaction_type="achieve" if number % 3 else "fail",
    )  # fmt: skip
    return [begun, ended]


async def test_a_change_of_the_rule_and_a_look_wait_for_each_other(
    bench: Bench, connection: asyncpg.Connection
) -> None:
    """A command and concurrent evaluations all succeed."""
    await spend(bench, 0, 1_000)
    await asyncio.gather(bench.check("spending"), send(bench, threshold=900), bench.check("spending"))
    assert [outcome for outcome, _ in await answers(connection)] == ["succeeded"]
    assert await connection.fetchval("SELECT count(*) FROM epochs") == 1
