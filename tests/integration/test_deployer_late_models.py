"""A deployer that has a model package before streams has registered it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backends.clock import ManualClock
from backends.database.engine import create_engine
from backends.database.repositories.deployment import DeploymentRepository
from backends.database.repositories.models import ModelRepository
from backends.database.unit_of_work import Database
from deployer.baselines import BaselineDeployment
from deployer.store import ArtifactStorage
from modelkit.registry import definition_of
from schemas.tables import models, thresholds, training_datasets
from schemas.vocabulary import Service
from tests.four_models import FOUR_MODELS
from tests.processes import eventually


async def test_a_model_that_is_registered_later_gets_its_baseline_then(
    database_url: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that the deployer sees before streams stops nobody, and its version 0 comes once the model is registered."""
    monkeypatch.setattr("deployer.baselines.LOOK_AGAIN_SECONDS", 0.05)
    database = Database(create_engine(database_url, application_name="test-deployer"), Service.DEPLOYER)
    baselines = BaselineDeployment(
        database, ArtifactStorage(f"file://{tmp_path / 'store'}"), clock, keys_folder=tmp_path / "keys"
    )
    late = definition_of("goal")
    async with database.transaction() as work:
        for table, column in ((training_datasets, "dataset_type"), (thresholds, "model_type"), (models, "model_type")):
            await work.connection.execute(table.delete().where(table.c[column] == late.model_type))
    assert sorted(await baselines.ensure()) == sorted({*FOUR_MODELS} - {late.model_type})
    assert baselines.unregistered == (late.model_type,)
    waiting = asyncio.ensure_future(baselines.run())
    async with database.transaction() as work:
        assert await ModelRepository(work.connection).register({late.model_type: late.threshold}) == [late.model_type]

    async def deployed() -> bool:
        async with database.reading() as connection:
            return late.model_type in await DeploymentRepository(connection).all_desired()

    await eventually(deployed, what="the baseline of the model that was registered later")
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await database.close()
