"""A person's decision about a data set: released in spite of its quality, or quarantined for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from schemas.messages.envelope import OffsetRange
from schemas.rows import ReviewedDataset
from schemas.tables import epochs, model_training_events, thresholds, training_datasets
from schemas.vocabulary import DatasetReview

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from schemas.evaluations import EvaluationRecord
    from schemas.vocabulary import ModelType

_DATASET = training_datasets.c


class ReviewRepository:
    """The statements of reviews of one model's data sets."""

    def __init__(self, connection: AsyncConnection, model_type: ModelType) -> None:
        self._connection = connection
        self._model_type = model_type

    async def lock(self, epoch: int | None) -> ReviewedDataset | None:
        """Lock the data set of an epoch, or the open one for None; None when there is none."""
        chosen = _DATASET.closed_at.is_(None) if epoch is None else _DATASET.epoch == epoch
        question = (
            sa.select(
                _DATASET.id, _DATASET.epoch, _DATASET.closed_at.is_(None).label("is_open"), _DATASET.data_count, _DATASET.threshold, _DATASET.data_quality_score,
                _DATASET.review, _DATASET.reviewed_by,
            )
            .where(_DATASET.dataset_type == self._model_type, chosen)
            .with_for_update()
        )  # fmt: skip
        row = (await self._connection.execute(question)).first()
        if row is None and epoch is None:  # the awaited data set was closed meanwhile: the next one is open
            row = (await self._connection.execute(question)).first()
        if row is None:
            return None
        return ReviewedDataset(
            id=row.id,
            epoch=row.epoch,
            is_open=row.is_open,
            data_count=row.data_count,
            threshold=row.threshold,
            quality_score=None if row.data_quality_score is None else float(row.data_quality_score),
            review=DatasetReview(row.review),
            reviewed_by=row.reviewed_by,
            ranges=await self._ranges_of(row.epoch),
        )

    async def approve(self, dataset_id: UUID, *, by: str, reason: str) -> None:
        """Record that a person accepts the data set's quality."""
        await self._review(dataset_id, DatasetReview.APPROVED, by=by, reason=reason)

    async def quarantine(
        self,
        dataset: ReviewedDataset,
        ranges: Sequence[OffsetRange],
        evaluation: EvaluationRecord,
        *,
        by: str,
        reason: str,
    ) -> None:
        """Keep the data set and its ranges out of all training; close it if it is open. ``evaluation`` is its last one."""
        closed = {"closed_at": sa.func.now(), "is_ready_for_training": False} if dataset.is_open else {}
        await self._review(
            dataset.id, DatasetReview.QUARANTINED, by=by, reason=reason, evaluation=msgspec.to_builtins(evaluation),
            quarantined_ranges=msgspec.to_builtins(list(ranges)), **closed,
        )  # fmt: skip

    async def open_behind(self, dataset: ReviewedDataset) -> None:
        """Open the data set behind one that was closed without a training; the time of the last crossing stays known."""
        threshold = sa.select(thresholds.c.threshold).where(thresholds.c.model_type == self._model_type)
        trained = sa.select(_DATASET.last_training_date).where(_DATASET.id == dataset.id)
        await self._connection.execute(
            sa.insert(training_datasets).values(
                dataset_type=self._model_type, epoch=dataset.epoch + 1, threshold=threshold.scalar_subquery(),
                last_training_date=trained.scalar_subquery(),
            )
        )  # fmt: skip

    async def trainings_of(self, epoch: int) -> list[str]:
        """Return the trainings that have begun with the crossing of ``epoch``, oldest first."""
        table = model_training_events.c
        rows = await self._connection.execute(
            sa.select(table.id)
            .where(table.model_type == self._model_type, table.epochs.contains([epoch]))
            .order_by(table.created_at)
        )
        return [str(name) for name in rows.scalars()]

    async def _review(self, dataset_id: UUID, review: DatasetReview, *, by: str, reason: str, **more: Any) -> None:  # noqa: ANN401 - columns
        await self._connection.execute(
            sa.update(training_datasets)
            .where(_DATASET.id == dataset_id)
            .values(
                review=review, reviewed_by=by, review_reason=reason, reviewed_at=sa.func.now(), updated_at=sa.func.now(), **more
            )
        )  # fmt: skip

    async def _ranges_of(self, epoch: int) -> tuple[OffsetRange, ...] | None:
        ranges = await self._connection.scalar(
            sa.select(epochs.c.ranges).where(epochs.c.model_type == self._model_type, epochs.c.epoch == epoch)
        )
        return None if ranges is None else msgspec.convert(ranges, tuple[OffsetRange, ...])
