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
SHIPPED_BY = (REGISTERED_BY, "migration")  # rules that no person has changed


class ModelRepository:
    """Registers models over one connection; commits nothing."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def register(self, rules: Mapping[ModelType, ThresholdRule]) -> list[ModelType]:
        """Give each model its shipped rule, and a new one its first data set; return the new models.

        A rule that was changed by command stays as it is.
        """
        return [model_type for model_type, rule in sorted(rules.items()) if await self._register(model_type, rule)]

    async def _register(self, model_type: ModelType, rule: ThresholdRule) -> bool:
        new = insert(models).values(model_type=model_type).on_conflict_do_nothing().returning(models.c.model_type)
        is_new = (await self._connection.execute(new)).scalar() is not None
        columns = {**msgspec.structs.asdict(rule), "blackouts": list(rule.blackouts)}
        shipped = insert(thresholds).values(model_type=model_type, updated_by=REGISTERED_BY, **columns)
        await self._connection.execute(
            shipped.on_conflict_do_update(
                index_elements=[thresholds.c.model_type],
                set_=columns,
                where=thresholds.c.updated_by.in_(SHIPPED_BY),
            )
        )
        first = insert(training_datasets).values(dataset_type=model_type, threshold=rule.threshold, epoch=1)
        if is_new:
            await self._connection.execute(first.on_conflict_do_nothing())
        return is_new

    async def known(self) -> list[ModelType]:
        """Return the models that are registered."""
        found = await self._connection.execute(sa.select(models.c.model_type).order_by(models.c.model_type))
        return list(found.scalars())
