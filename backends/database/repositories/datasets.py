"""What the transaction of an epoch reads and writes: data sets, cursors, panes behind them, evaluations, epochs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa

from schemas.tables import (
    data_quality_metrics,
    dataset_cursors,
    epochs,
    threshold_evaluations,
    thresholds,
    training_datasets,
)
from schemas.vocabulary import DatasetReview

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from schemas.messages.envelope import OffsetRange
    from schemas.topics import Topic
    from schemas.vocabulary import ModelType

# Each partition's panes from its cursor on, through the primary key.
_PANES_BEHIND = sa.text("""
SELECT pane.partition, pane.from_offset, pane.to_offset, pane.closed_at, pane.counts, pane.sketches
FROM ledger
LEFT JOIN dataset_cursors AS cursor ON cursor.model_type = :model_type AND cursor.topic = ledger.topic
    AND cursor.generation = ledger.generation AND cursor.partition = ledger.partition
CROSS JOIN LATERAL (
    SELECT partition, from_offset, to_offset, closed_at, counts, sketches FROM panes
    WHERE topic = ledger.topic AND generation = ledger.generation AND partition = ledger.partition
        AND from_offset >= coalesce(cursor.next_offset, 0)
    ORDER BY from_offset LIMIT :most
) AS pane
WHERE ledger.topic = :topic AND ledger.generation = :generation
ORDER BY pane.partition, pane.from_offset
""")
_NEW_CURSORS = sa.text("""
INSERT INTO dataset_cursors (model_type, topic, generation, partition, epoch_from_offset, next_offset)
SELECT :model_type, topic, generation, partition, first, first FROM (
    SELECT ledger.*, coalesce((
        SELECT min(from_offset) FROM panes
        WHERE panes.topic = ledger.topic AND panes.generation = ledger.generation AND panes.partition = ledger.partition
    ), next_offset) AS first FROM ledger WHERE topic = :topic AND generation = :generation
) AS beginning
ON CONFLICT DO NOTHING
""")


class OpenDataset(NamedTuple):
    """The open data set of a model, locked, with the rule that holds for it and the database's time."""

    id: UUID
    epoch: int
    data_count: int
    accumulated: bytes | None
    threshold: int
    quality_gate: float
    cool_down_seconds: int
    seconds_since_epoch: float | None
    last_decision: str | None
    review: DatasetReview = DatasetReview.NONE
    reviewed_by: str | None = None


class PaneSlice(NamedTuple):
    """A pane as a data set sees it."""

    partition: int
    from_offset: int
    to_offset: int
    closed_at: dt.datetime
    counts: Mapping[str, Any]
    sketches: bytes | None


class Standing(NamedTuple):
    """An open data set as it stands, in one consistent view: what is accumulated, cursors, and the panes behind them."""

    epoch: int
    accumulated: bytes | None
    cursors: Mapping[int, int]
    panes: Sequence[PaneSlice]


@dataclass(slots=True)
class Cursor:
    """Where an epoch begins in a partition, and up to where its panes are taken."""

    epoch_from_offset: int
    next_offset: int


class DatasetRepository:
    """The statements of one model's epoch."""

    def __init__(self, connection: AsyncConnection, model_type: ModelType, topic: Topic) -> None:
        self._connection = connection
        self._model_type = model_type
        self._topic = topic

    async def lock_open(self, *, wait: bool) -> OpenDataset | None:
        """Lock the open data set; None when another transaction holds it and ``wait`` is False."""
        table = training_datasets.c
        found = await self._connection.execute(
            sa.select(table.id, table.epoch, table.data_count, table.accumulated, table.review, table.reviewed_by)
            .where(table.dataset_type == self._model_type, table.closed_at.is_(None))
            .with_for_update(skip_locked=not wait)
        )
        row = found.first()
        if row is None:
            return None
        return OpenDataset(
            *row[:4],
            *await self._rule(),
            await self._last_decision(row.epoch),
            review=DatasetReview(row.review),
            reviewed_by=row.reviewed_by,
        )

    async def cursors(self) -> dict[int, Cursor]:
        """Return the cursor of each partition, those of new partitions included."""
        place = {"model_type": self._model_type, "topic": self._topic.name, "generation": self._topic.generation}
        await self._connection.execute(_NEW_CURSORS, place)
        return await self._known_cursors()

    async def _known_cursors(self) -> dict[int, Cursor]:
        rows = await self._connection.execute(
            sa.select(dataset_cursors).where(
                dataset_cursors.c.model_type == self._model_type,
                dataset_cursors.c.topic == self._topic.name,
                dataset_cursors.c.generation == self._topic.generation,
            )
        )
        return {row.partition: Cursor(row.epoch_from_offset, row.next_offset) for row in rows}

    async def panes_behind(self, *, most: int) -> list[PaneSlice]:
        """Return up to ``most`` panes of each partition behind the cursors, by partition and offset."""
        place = {"model_type": self._model_type, "topic": self._topic.name, "generation": self._topic.generation}
        rows = await self._connection.execute(_PANES_BEHIND, {**place, "most": most})
        return [PaneSlice(*row) for row in rows]

    async def standing(self, *, most_panes: int = 10_000) -> Standing:
        """Return the open data set without locking it; the first question of its connection."""
        await self._connection.execution_options(isolation_level="REPEATABLE READ")
        table = training_datasets.c
        found = await self._connection.execute(
            sa.select(table.epoch, table.accumulated).where(
                table.dataset_type == self._model_type, table.closed_at.is_(None)
            )
        )
        epoch, accumulated = found.one()
        cursors = {partition: cursor.next_offset for partition, cursor in (await self._known_cursors()).items()}
        return Standing(epoch, accumulated, cursors, await self.panes_behind(most=most_panes))

    async def move_cursors(self, cursors: Mapping[int, Cursor]) -> None:
        """Write where the cursors stand."""
        for partition, cursor in cursors.items():
            await self._connection.execute(
                sa.update(dataset_cursors)
                .where(
                    dataset_cursors.c.model_type == self._model_type,
                    dataset_cursors.c.topic == self._topic.name,
                    dataset_cursors.c.generation == self._topic.generation,
                    dataset_cursors.c.partition == partition,
                )
                .values(epoch_from_offset=cursor.epoch_from_offset, next_offset=cursor.next_offset)
            )

    async def update_open(self, dataset_id: UUID, values: Mapping[str, Any]) -> None:
        """Change the data set."""
        await self._connection.execute(
            sa.update(training_datasets)
            .where(training_datasets.c.id == dataset_id)
            .values(**values, updated_at=sa.func.now())
        )

    async def close_and_open_next(
        self, dataset_id: UUID, values: Mapping[str, Any], *, epoch: int, threshold: int
    ) -> None:
        """Close the data set and open the one of epoch ``epoch``, which remembers when this one was closed."""
        await self.update_open(dataset_id, {**values, "closed_at": sa.func.now()})
        await self._connection.execute(
            sa.insert(training_datasets).values(
                dataset_type=self._model_type, epoch=epoch, threshold=threshold, last_training_date=sa.func.now()
            )
        )

    async def save_evaluation(self, *, epoch: int, evaluation: Mapping[str, Any]) -> UUID:
        """Keep an evaluation with its factors; return its name."""
        return await self._inserted(
            threshold_evaluations, {"model_type": self._model_type, "epoch": epoch, **evaluation}
        )

    async def save_quality(self, dataset_id: UUID, values: Mapping[str, Any]) -> UUID:
        """Keep a judgement about a data set; return its name."""
        return await self._inserted(data_quality_metrics, {"training_dataset_id": dataset_id, **values})

    async def save_epoch(self, *, epoch: int, ranges: Sequence[OffsetRange], values: Mapping[str, Any]) -> None:
        """Keep the epoch; (model_type, epoch) is unique."""
        await self._connection.execute(
            sa.insert(epochs).values(
                model_type=self._model_type, epoch=epoch, ranges=msgspec.to_builtins(list(ranges)), **values
            )
        )

    async def change_rule(self, changes: Mapping[str, Any], *, by: str) -> None:
        """Change threshold, gate or cool-down of the model, and the threshold that its open data set shows."""
        await self._connection.execute(
            sa.update(thresholds)
            .where(thresholds.c.model_type == self._model_type)
            .values(**changes, updated_by=by, updated_at=sa.func.now())
        )
        if "threshold" in changes:
            await self._connection.execute(
                sa.update(training_datasets)
                .where(training_datasets.c.dataset_type == self._model_type, training_datasets.c.closed_at.is_(None))
                .values(threshold=changes["threshold"], updated_at=sa.func.now())
            )

    async def _rule(self) -> tuple[int, float, int, float | None]:
        since = (
            sa.select(sa.func.extract("epoch", sa.func.now() - sa.func.max(epochs.c.reached_at)))
            .where(epochs.c.model_type == self._model_type)
            .scalar_subquery()
        )
        rule = thresholds.c
        found = await self._connection.execute(
            sa.select(rule.threshold, rule.quality_gate, rule.cool_down_seconds, since).where(
                rule.model_type == self._model_type
            )
        )
        threshold, gate, cool_down, seconds = found.one()
        return threshold, float(gate), cool_down, None if seconds is None else float(seconds)

    async def _last_decision(self, epoch: int) -> str | None:
        table = threshold_evaluations.c
        found: str | None = await self._connection.scalar(
            sa.select(table.decision)
            .where(table.model_type == self._model_type, table.epoch == epoch)
            .order_by(table.evaluated_at.desc())
            .limit(1)
        )
        return found

    async def _inserted(self, table: sa.Table, values: Mapping[str, Any]) -> UUID:
        row = await self._connection.execute(sa.insert(table).values(**values).returning(table.c.id))
        name: UUID = row.scalar_one()
        return name
