"""Registered models: what a model begins with, and what a person has changed."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from backends.database.repositories.models import ModelRepository
from modelkit.registry import definition_of
from schemas.tables import thresholds, training_datasets
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import Service
from tests.integration.backends_topics import database_of

GOAL = definition_of("goal").threshold


async def test_a_new_model_begins_with_its_shipped_rule_and_an_open_data_set(database_url: str) -> None:
    """A model that is installed later counts towards the threshold of its own package."""
    async with database_of(Service.STREAMS, database_url) as database:
        async with database.transaction() as work:
            assert await ModelRepository(work.connection).register({"weather": ThresholdRule(threshold=7)}) == [
                "weather"
            ]
        async with database.transaction() as work:
            assert await ModelRepository(work.connection).register({"weather": ThresholdRule(threshold=7)}) == []
            assert "weather" in await ModelRepository(work.connection).known()
            opened = sa.select(training_datasets.c.epoch, training_datasets.c.threshold)
            rows = await work.connection.execute(opened.where(training_datasets.c.dataset_type == "weather"))
    assert rows.all() == [(1, 7)]


async def test_the_shipped_rule_is_in_force_until_a_person_changes_it(database_url: str) -> None:
    """A new release brings its own default; what was set by command stays."""
    column = sa.select(thresholds.c.threshold).where(thresholds.c.model_type == "goal")
    async with database_of(Service.STREAMS, database_url) as database, database.transaction() as work:
        await ModelRepository(work.connection).register({"goal": msgspec.structs.replace(GOAL, threshold=60)})
        assert await work.connection.scalar(column) == 60
        await work.connection.execute(
            sa.update(thresholds).where(thresholds.c.model_type == "goal").values(threshold=9, updated_by="ann")
        )
        await ModelRepository(work.connection).register({"goal": GOAL})
        assert await work.connection.scalar(column) == 9
