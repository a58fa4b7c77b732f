"""What the transaction of an epoch reads and writes: data sets, cursors, panes behind them, evaluations, epochs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from schemas.tables import (
    arrival_patterns,
    data_quality_metrics,
    dataset_cursors,
    epochs,
    ledger,
    threshold_evaluations,
    thresholds,
    training_datasets,
)
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import DatasetReview

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from schemas.evaluations import EvaluationRecord
    from schemas.messages.envelope import OffsetRange
    from schemas.topics import Topic
    from schemas.vocabulary import ModelType

# The panes of each partition from its cursor on, through the primary key; only this model's part of them.
_PANES_BEHIND = (
    sa.text("""
SELECT pane.partition, pane.from_offset, pane.to_offset, pane.closed_at, pane.counts, pane.sketches
FROM ledger
LEFT JOIN dataset_cursors AS cursor ON cursor.model_type = :model_type AND cursor.topic = ledger.topic
    AND cursor.generation = ledger.generation AND cursor.partition = ledger.partition
CROSS JOIN LATERAL (
    SELECT partition, from_offset, to_offset, closed_at, counts -> :model_type AS counts,
        CASE WHEN jsonb_exists(counts, :model_type) THEN sketches END AS sketches
    FROM panes
    WHERE topic = ledger.topic AND generation = ledger.generation AND partition = ledger.partition
        AND from_offset >= coalesce(cursor.next_offset, 0)
    ORDER BY from_offset LIMIT :most
) AS pane
WHERE ledger.topic = :topic AND ledger.generation = :generation
ORDER BY pane.partition, pane.from_offset
""")
    .bindparams(sa.bindparam("model_type", type_=sa.Text))
    .columns(counts=JSONB)
)
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
_MOVE_CURSORS = sa.text("""
UPDATE dataset_cursors AS cursor SET epoch_from_offset = moved.epoch_from_offset, next_offset = moved.next_offset
FROM unnest(CAST(:partitions AS int[]), CAST(:beginnings AS bigint[]), CAST(:nexts AS bigint[]))
    AS moved (partition, epoch_from_offset, next_offset)
WHERE cursor.model_type = :model_type AND cursor.topic = :topic AND cursor.generation = :generation
    AND cursor.partition = moved.partition
    AND (cursor.epoch_from_offset, cursor.next_offset) <> (moved.epoch_from_offset, moved.next_offset)
""")
# What a decision depends on besides the data set; the medians are over the five newest and the five first trainings.
_CIRCUMSTANCES = sa.text("""
SELECT rule.threshold, rule.quality_gate::float8, rule.cool_down_seconds, rule.adaptive, rule.least, rule.most, rule.max_age_seconds,
    rule.blackouts, rule.user_share::float8, rule.even_share, rule.reference_cost_seconds,
    now() AS moment, closed.learned, closed.first, extract(epoch FROM now() - closed.reached_at)::float8 AS seconds_since_epoch,
    newest.seconds AS cost_seconds, oldest.seconds AS first_cost_seconds,
    pattern.rates, pattern.hours, pattern.current_hour, pattern.current_count
FROM thresholds AS rule
CROSS JOIN LATERAL (
    SELECT coalesce(sum(counted) FILTER (WHERE is_learned), 0) AS learned,
        coalesce((array_agg(counted ORDER BY epoch) FILTER (WHERE is_learned))[1], 0) AS first, max(reached_at) AS reached_at
    FROM (
        SELECT epochs.epoch, counted, reached_at, review <> 'quarantined' AS is_learned FROM epochs
        JOIN training_datasets ON training_datasets.id = epochs.training_dataset_id WHERE epochs.model_type = rule.model_type
    ) AS reached
) AS closed
CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS seconds FROM (
        SELECT extract(epoch FROM end_time - start_time)::float8 AS seconds FROM model_training_events
        WHERE model_type = rule.model_type AND status IN ('completed', 'deployed') ORDER BY created_at DESC LIMIT 5) AS runs
) AS newest
CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS seconds FROM (
        SELECT extract(epoch FROM end_time - start_time)::float8 AS seconds FROM model_training_events
        WHERE model_type = rule.model_type AND status IN ('completed', 'deployed') ORDER BY created_at LIMIT 5) AS runs
) AS oldest
LEFT JOIN arrival_patterns AS pattern ON pattern.model_type = rule.model_type
WHERE rule.model_type = :model_type
""")
# The progress of each open data set and what waits behind it: without a lock, for all models at once.
_STANDINGS = sa.text("""
SELECT open.dataset_type AS model_type, open.data_count, open.threshold, open.evaluation ->> 'decision' AS decision,
    extract(epoch FROM now() - open.updated_at)::float8 AS idle_seconds, extract(epoch FROM now() - open.created_at)::float8 AS age_seconds,
    rule.threshold AS configured, rule.max_age_seconds, rule.cool_down_seconds, rule.blackouts, now() AS moment,
    extract(epoch FROM now() - (SELECT reached_at FROM epochs WHERE model_type = open.dataset_type
        ORDER BY epoch DESC LIMIT 1))::float8 AS seconds_since_epoch,
    waiting.panes, waiting.counted
FROM training_datasets AS open
JOIN thresholds AS rule ON rule.model_type = open.dataset_type
CROSS JOIN LATERAL (
    SELECT count(*) AS panes, coalesce(sum((pane.counts -> open.dataset_type ->> 'counted')::bigint), 0)::bigint AS counted
    FROM ledger
    LEFT JOIN dataset_cursors AS cursor ON cursor.model_type = open.dataset_type AND cursor.topic = ledger.topic
        AND cursor.generation = ledger.generation AND cursor.partition = ledger.partition
    JOIN panes AS pane ON pane.topic = ledger.topic AND pane.generation = ledger.generation
        AND pane.partition = ledger.partition AND pane.from_offset >= coalesce(cursor.next_offset, 0)
    WHERE ledger.topic = :topic AND ledger.generation = :generation
) AS waiting
WHERE open.closed_at IS NULL
ORDER BY open.dataset_type
""")


class ArrivalRow(NamedTuple):
    """The arrivals of a model by hour of the week, as they are stored."""

    rates: Sequence[float]
    hours: int
    current_hour: dt.datetime
    current_count: int


class CircumstancesRow(NamedTuple):
    """The rule of a model and the other inputs of a decision, by the database's clock."""

    rule: ThresholdRule
    moment: dt.datetime | None = None
    learned: int = 0
    first: int = 0
    seconds_since_epoch: float | None = None
    cost_seconds: float | None = None
    first_cost_seconds: float | None = None
    arrivals: ArrivalRow | None = None


class OpenDataset(NamedTuple):
    """The open data set of a model, locked: ``told`` is the last entry of its history, ``sentence`` its progress at the last look."""

    id: UUID
    epoch: int
    accumulated: bytes | None
    created_at: dt.datetime | None = None
    review: DatasetReview = DatasetReview.NONE
    reviewed_by: str | None = None
    told: Mapping[str, Any] | None = None
    sentence: str | None = None
    share_alert_at: dt.datetime | None = None


class Standing(NamedTuple):
    """The progress of an open data set, read without a lock: what it holds, what waits behind it, what may be due."""

    model_type: str
    data_count: int
    threshold: int
    decision: str | None
    idle_seconds: float
    age_seconds: float
    configured: int
    max_age_seconds: int | None
    cool_down_seconds: int
    blackouts: Sequence[str]
    moment: dt.datetime
    seconds_since_epoch: float | None
    panes: int
    counted: int


class PaneSlice(NamedTuple):
    """A pane as the data set of one model sees it."""

    partition: int
    from_offset: int
    to_offset: int
    closed_at: dt.datetime
    counts: Mapping[str, Any] | None
    sketches: bytes | None


class LiveStanding(NamedTuple):
    """An open data set in one consistent view: what is accumulated, cursors, and the panes behind them."""

    epoch: int
    accumulated: bytes | None
    cursors: Mapping[int, int]
    panes: Sequence[PaneSlice]


@dataclass(slots=True)
class Cursor:
    """Where an epoch begins in a partition, and the offset up to which its panes are taken."""

    epoch_from_offset: int
    next_offset: int


async def standings(connection: AsyncConnection, topic: Topic) -> list[Standing]:
    """Return the progress of the open data sets of all models."""
    rows = await connection.execute(_STANDINGS, {"topic": topic.name, "generation": topic.generation})
    return [Standing(**row) for row in rows.mappings()]


class DatasetRepository:
    """The statements of one model's epoch."""

    def __init__(self, connection: AsyncConnection, model_type: ModelType, topic: Topic) -> None:
        self._connection = connection
        self._model_type = model_type
        self._topic = topic

    async def lock_open(self, *, wait: bool) -> OpenDataset | None:
        """Lock the open data set; None when another transaction holds it and ``wait`` is False."""
        table = training_datasets.c
        question = (
            sa.select(
                table.id, table.epoch, table.accumulated, table.created_at, table.review, table.reviewed_by,
                table.evaluation["told"].label("told"), table.evaluation["sentence"].astext.label("sentence"), table.share_alert_at,
            )
            .where(table.dataset_type == self._model_type, table.closed_at.is_(None))
            .with_for_update(skip_locked=not wait)
        )  # fmt: skip
        row = (await self._connection.execute(question)).mappings().first()
        if row is None and wait:  # the awaited data set was closed meanwhile: the next one is open
            row = (await self._connection.execute(question)).mappings().first()
        return None if row is None else OpenDataset(**{**row, "review": DatasetReview(row["review"])})

    async def circumstances(self) -> CircumstancesRow:
        """Return the rule in force and the other inputs of a decision; call it after locking, to see a changed rule."""
        found = await self._connection.execute(_CIRCUMSTANCES, {"model_type": self._model_type})
        row = found.mappings().one()
        apart = {"rule", "arrivals"}
        return CircumstancesRow(
            rule=_rule_of(row),
            arrivals=None if row["rates"] is None else ArrivalRow(**{name: row[name] for name in ArrivalRow._fields}),
            **{name: row[name] for name in CircumstancesRow._fields if name not in apart},
        )

    async def earlier_statistics(self, *, before_epoch: int, most: int) -> list[bytes]:
        """Return what the last ``most`` closed data sets held, without quarantined ones."""
        table = training_datasets.c
        rows = await self._connection.execute(
            sa.select(table.accumulated)
            .where(
                table.dataset_type == self._model_type,
                table.epoch < before_epoch,
                table.accumulated.is_not(None),
                table.review != DatasetReview.QUARANTINED,
            )
            .order_by(table.epoch.desc())
            .limit(most)
        )
        return list(rows.scalars())

    async def cursors(self) -> dict[int, Cursor]:
        """Return the cursor of each partition, those of new partitions included."""
        partitions = await self._connection.scalar(
            sa.select(sa.func.count()).where(
                ledger.c.topic == self._topic.name, ledger.c.generation == self._topic.generation
            )
        )
        known = await self._known_cursors()
        if len(known) == partitions:
            return known
        await self._connection.execute(_NEW_CURSORS, self._place())
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
        rows = await self._connection.execute(_PANES_BEHIND, {**self._place(), "most": most})
        return [PaneSlice(**row) for row in rows.mappings()]

    async def standing(self, *, most_panes: int = 10_000) -> LiveStanding:
        """Return the open data set without locking it; must be the first query of its connection."""
        await self._connection.execution_options(isolation_level="REPEATABLE READ")
        table = training_datasets.c
        found = await self._connection.execute(
            sa.select(table.epoch, table.accumulated).where(
                table.dataset_type == self._model_type, table.closed_at.is_(None)
            )
        )
        standing = found.one()
        cursors = {partition: cursor.next_offset for partition, cursor in (await self._known_cursors()).items()}
        panes = await self.panes_behind(most=most_panes)
        return LiveStanding(standing.epoch, standing.accumulated, cursors, panes)

    async def move_cursors(self, cursors: Mapping[int, Cursor]) -> None:
        """Write the positions of the cursors."""
        await self._connection.execute(
            _MOVE_CURSORS,
            {
                **self._place(),
                "partitions": list(cursors),
                "beginnings": [cursor.epoch_from_offset for cursor in cursors.values()],
                "nexts": [cursor.next_offset for cursor in cursors.values()],
            },
        )

    async def save_arrivals(self, arrivals: ArrivalRow) -> None:
        """Keep the arrivals by hour of the week."""
        values = {**arrivals._asdict(), "rates": list(arrivals.rates), "updated_at": sa.func.now()}
        await self._connection.execute(
            insert(arrival_patterns)
            .values(model_type=self._model_type, **values)
            .on_conflict_do_update(index_elements=["model_type"], set_=values)
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
        """Close the data set and open that of ``epoch``, which records when this one was closed."""
        await self.update_open(dataset_id, {**values, "closed_at": sa.func.now()})
        await self._connection.execute(
            sa.insert(training_datasets).values(
                dataset_type=self._model_type, epoch=epoch, threshold=threshold, last_training_date=sa.func.now()
            )
        )

    async def save_evaluation(self, *, epoch: int, evaluation: EvaluationRecord) -> UUID:
        """Store an evaluation with its factors; return its id."""
        columns = msgspec.to_builtins(evaluation)
        return await self._inserted(threshold_evaluations, {"model_type": self._model_type, "epoch": epoch, **columns})

    async def save_quality(self, dataset_id: UUID, values: Mapping[str, Any]) -> UUID:
        """Store a judgement about a data set; return its id."""
        return await self._inserted(data_quality_metrics, {"training_dataset_id": dataset_id, **values})

    async def save_epoch(self, *, epoch: int, ranges: Sequence[OffsetRange], values: Mapping[str, Any]) -> None:
        """Store the epoch; (model_type, epoch) is unique."""
        await self._connection.execute(
            sa.insert(epochs).values(
                model_type=self._model_type, epoch=epoch, ranges=msgspec.to_builtins(list(ranges)), **values
            )
        )

    async def change_rule(self, changes: Mapping[str, Any], *, by: str) -> None:
        """Change columns of the model's rule, and the threshold that its open data set shows."""
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

    def _place(self) -> dict[str, Any]:
        return {"model_type": self._model_type, "topic": self._topic.name, "generation": self._topic.generation}

    async def _inserted(self, table: sa.Table, values: Mapping[str, Any]) -> UUID:
        row = await self._connection.execute(sa.insert(table).values(**values).returning(table.c.id))
        name: UUID = row.scalar_one()
        return name


def _rule_of(row: sa.RowMapping) -> ThresholdRule:
    columns = {name: row[name] for name in ThresholdRule.__struct_fields__}
    return ThresholdRule(**{**columns, "blackouts": tuple(row["blackouts"])})
