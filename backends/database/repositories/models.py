"""The models that this installation knows: the table behind every ``model_type``, and the rows of a new model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schemas.tables import models, thresholds, training_datasets

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from schemas.thresholds import ThresholdRule
    from schemas.vocabulary import ModelType

REGISTERED_BY = "installation"


class ModelRepository:
    """Registers models over one connection; commits nothing."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def register(self, rules: Mapping[ModelType, ThresholdRule]) -> list[ModelType]:
        """Give each unknown model its threshold and its first data set; return those models.

        A known model keeps what it has: its rule may have been changed by command.
        """
        added = []
        for model_type, rule in sorted(rules.items()):
            new = insert(models).values(model_type=model_type).on_conflict_do_nothing().returning(models.c.model_type)
            if (await self._connection.execute(new)).scalar() is None:
                continue
            columns = {**msgspec.structs.asdict(rule), "blackouts": list(rule.blackouts)}
            await self._connection.execute(
                insert(thresholds)
                .values(model_type=model_type, updated_by=REGISTERED_BY, **columns)
                .on_conflict_do_nothing()
            )
            await self._connection.execute(
                insert(training_datasets)
                .values(dataset_type=model_type, threshold=rule.threshold, epoch=1)
                .on_conflict_do_nothing()
            )
            added.append(model_type)
        return added

    async def known(self) -> list[ModelType]:
        """Return the models that are registered."""
        found = await self._connection.execute(sa.select(models.c.model_type).order_by(models.c.model_type))
        return list(found.scalars())
