"""The quality of an epoch on a real database: its row shows each defect, with its parts."""

from __future__ import annotations

import datetime as dt
import uuid

import asyncpg
import msgspec
import pytest

from fincoach_events.events import PageViewed
from schemas.vocabulary import ModelType
from tests.integration.streams_bench import Bench, feedback
from tests.integration.streams_workers import EVENT_TIME, transaction


async def judgement(connection: asyncpg.Connection, model_type: ModelType) -> asyncpg.Record:
    """Return the newest stored judgement of a model's data set."""
    return await connection.fetchrow(
        "SELECT quality.* FROM data_quality_metrics quality JOIN training_datasets dataset"
        " ON dataset.id = quality.training_dataset_id WHERE dataset.dataset_type = $1 ORDER BY quality.created_at DESC",
        model_type,
    )


async def test_what_is_wrong_with_an_epoch_stands_in_its_row(bench: Bench, connection: asyncpg.Connection) -> None:
    """The stored quality shows the true rate of each defect."""
    sound = [transaction(number) for number in range(1_000)]
    odd = [
        *(transaction(number, currency="EUR") for number in range(1_000, 1_050)),
        *(transaction(number, category="unknown") for number in range(1_050, 1_100)),
        *(transaction(number, amount_minor=0) for number in range(1_100, 1_150)),
        *(transaction(number, occurred_at=EVENT_TIME - dt.timedelta(days=60)) for number in range(1_150, 1_200)),
    ]
    await bench.feed(sound[:500])
    await bench.feed([transaction(2_000)] * 25, raw=b'{"event_type":"transaction_creation","amount_minor":-1}')
    await bench.feed([*odd, *sound[:30], *sound[500:]])
    await bench.check("spending")
    row = await judgement(connection, "spending")
    parts = msgspec.json.decode(row["parts"])
    assert float(row["validity_score"]) == pytest.approx((1_200 - 50) / 1_225, abs=1e-4)
    assert float(row["consistency_score"]) == pytest.approx(1 - 50 / 1_200, abs=1e-4)
    assert float(row["freshness_score"]) == pytest.approx(1 - 50 / 1_200, abs=1e-4)
    assert float(row["completeness_score"]) == pytest.approx(1 - 50 / 1_200, abs=1e-4)
    assert (row["duplicate_count"], row["missing_values_count"], row["anomaly_count"]) == (30, 50, 0)
    assert parts["inconsistencies"] == {"currency_changed": 50}
    assert parts["sources"]["host"]["late"] == 50
    assert parts["users"] == pytest.approx(50, abs=3)


async def test_silence_is_kept_apart_from_answers(bench: Bench, connection: asyncpg.Connection) -> None:
    """Views and page times are recorded as implicit feedback and never counted."""
    views = [feedback(number, recommendation_id=f"r{number}", interaction_type="view") for number in range(900)]
    answers = [
        feedback(1_000 + number, recommendation_id=f"r{number}", user_id=views[number].user_id) for number in range(600)
    ]
    pages = [
        PageViewed(
            event_id=uuid.uuid4(), user_id=views[0].user_id, occurred_at=EVENT_TIME, consent=True, page_url="/", duration_seconds=20.0
        )
        for _ in range(10)
    ]  # fmt: skip
    await bench.feed([*views, *answers, *pages])
    assert (await bench.check("recommendation")).startswith("600 of 500")
    parts = msgspec.json.decode((await judgement(connection, "recommendation"))["parts"])
    implicit = parts["implicit"]
    assert (implicit["views"], implicit["unanswered"], implicit["page_views"], implicit["page_seconds"]) == (
        900,
        300,
        10,
        200,
    )
    assert implicit["weighted"] == pytest.approx(implicit["weight"] * 310)
    assert (parts["counts"]["counted"], parts["inconsistencies"]) == (600, {})
