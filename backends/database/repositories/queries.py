"""What people and programs ask of the database: lists for the command line, positions and counts for the status.

Read-only. What comes back are the structs of :mod:`schemas.rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa

from schemas.evaluations import read_evaluation
from schemas.messages.deployment import ServedModel
from schemas.rows import (
    Acknowledgement,
    ArchivedEvent,
    AuditEntry,
    DatasetSummary,
    DesiredDeployment,
    EvaluationSummary,
    ExpiredLease,
    ExplainedDataset,
    FailedTraining,
    KnownReplica,
    LedgerPosition,
    LoopFigures,
    QueuedJob,
    RolloutDecision,
    ThresholdSetting,
    TrainingSummary,
    VersionSummary,
    WaitingAnnouncements,
)
from schemas.tables import (
    audit_log,
    behavioral_events,
    data_quality_metrics,
    deployments,
    ledger,
    model_training_events,
    model_versions,
    outbox,
    replica_acknowledgements,
    replicas,
    rollout_decisions,
    threshold_evaluations,
    thresholds,
    training_datasets,
    training_jobs,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Row = TypeVar("Row", bound=msgspec.Struct)


class QueryRepository:
    """Answers queries over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def versions(self, model_type: str | None) -> list[VersionSummary]:
        """Return known versions, newest first."""
        v = model_versions.c
        query = _of_model(_columns(model_versions, VersionSummary), v.model_type, model_type)
        return await self._rows(VersionSummary, query.order_by(v.model_type, v.created_at.desc()))

    async def datasets(self, model_type: str | None, *, limit: int) -> list[DatasetSummary]:
        """Return data sets with their newest quality, the open ones first."""
        d, n = training_datasets.c, _NEWEST_QUALITY.c
        query = sa.select(
            d.dataset_type, d.epoch, d.data_count, d.threshold, d.threshold_reached, d.is_ready_for_training, d.data_quality_score,
            n.completeness_score, n.consistency_score, n.validity_score, n.freshness_score, n.diversity_score, n.anomaly_count,
            n.duplicate_count, n.missing_values_count, d.last_training_date, d.created_at, d.updated_at, d.closed_at,
            d.review, d.reviewed_by, d.review_reason,
        ).select_from(training_datasets.outerjoin(_NEWEST_QUALITY, sa.true()))  # fmt: skip
        query = _of_model(query, d.dataset_type, model_type)
        newest = query.order_by(d.closed_at.desc().nulls_first(), d.dataset_type).limit(limit)
        return await self._rows(DatasetSummary, newest)

    async def evaluations(self, model_type: str | None, *, limit: int) -> list[EvaluationSummary]:
        """Return the newest evaluations of thresholds, with their sentences."""
        e = threshold_evaluations.c
        query = _of_model(_columns(threshold_evaluations, EvaluationSummary), e.model_type, model_type)
        return await self._rows(EvaluationSummary, query.order_by(e.evaluated_at.desc()).limit(limit))

    async def explanation(self, model_type: str, *, epoch: int | None) -> ExplainedDataset | None:
        """Return one data set (without ``epoch``, the open one) with its last evaluation, or None if there is no such epoch."""
        d, n = training_datasets.c, _NEWEST_QUALITY.c
        query = sa.select(
            d.dataset_type, d.epoch, d.updated_at, d.closed_at, d.evaluation, n.parts, n.assessment_date
        ).select_from(training_datasets.outerjoin(_NEWEST_QUALITY, sa.true()))
        wanted = d.closed_at.is_(None) if epoch is None else d.epoch == epoch
        row = (await self._connection.execute(query.where(d.dataset_type == model_type, wanted))).first()
        if row is None:
            return None
        return ExplainedDataset(
            model_type=row.dataset_type,
            epoch=row.epoch,
            updated_at=row.updated_at,
            closed_at=row.closed_at,
            evaluation=read_evaluation(row.evaluation) if row.evaluation else None,
            quality_parts=row.parts,
            assessed_at=row.assessment_date,
        )

    async def thresholds(self, model_type: str | None = None) -> list[ThresholdSetting]:
        """Return the rules in force."""
        t = thresholds.c
        query = _of_model(_columns(thresholds, ThresholdSetting), t.model_type, model_type)
        return await self._rows(ThresholdSetting, query.order_by(t.model_type))

    async def trainings(self, model_type: str | None, *, limit: int) -> list[TrainingSummary]:
        """Return trainings, newest first."""
        t = model_training_events.c
        query = _of_model(_columns(model_training_events, TrainingSummary), t.model_type, model_type)
        return await self._rows(TrainingSummary, query.order_by(t.created_at.desc()).limit(limit))

    async def jobs(self) -> list[QueuedJob]:
        """Return waiting and running training jobs, oldest first."""
        j = training_jobs.c
        query = _columns(training_jobs, QueuedJob).where(j.status.in_(("queued", "running")))
        return await self._rows(QueuedJob, query.order_by(j.created_at))

    async def events(self, *, user_id: UUID | None, event_type: str | None, limit: int) -> list[ArchivedEvent]:
        """Return archived behavioural events, newest first."""
        e = behavioral_events.c
        query = _columns(behavioral_events, ArchivedEvent)
        if user_id is not None:
            query = query.where(e.user_id == user_id)
        if event_type is not None:
            query = query.where(e.event_type == event_type)
        return await self._rows(ArchivedEvent, query.order_by(e.archived_at.desc(), e.offset.desc()).limit(limit))

    async def decisions(self, model_type: str | None, *, limit: int) -> list[RolloutDecision]:
        """Return rollout decisions, newest first."""
        r = rollout_decisions.c
        query = _of_model(_columns(rollout_decisions, RolloutDecision), r.model_type, model_type)
        return await self._rows(RolloutDecision, query.order_by(r.decided_at.desc()).limit(limit))

    async def deployments(self) -> list[DesiredDeployment]:
        """Return the desired state of each model."""
        d, v = deployments.c, model_versions
        active, previous = v.alias("active"), v.alias("previous")
        joined = deployments.join(active, active.c.id == d.active_version_id).outerjoin(
            previous, previous.c.id == d.previous_version_id
        )
        query = sa.select(
            d.model_type,
            d.sequence,
            d.phase,
            active.c.version,
            active.c.kind,
            previous.c.version.label("previous_version"),
            d.updated_at,
        )
        return await self._rows(DesiredDeployment, query.select_from(joined).order_by(d.model_type))

    async def replicas(self) -> list[KnownReplica]:
        """Return what the replicas last reported."""
        query = _columns(replicas, KnownReplica).order_by(replicas.c.replica_id)
        rows = (await self._connection.execute(query)).mappings()
        return [
            KnownReplica(**{**row, "models": msgspec.convert(row["models"], dict[str, ServedModel])}) for row in rows
        ]

    async def ledger(self) -> list[LedgerPosition]:
        """Return the positions up to which work is committed."""
        query = _columns(ledger, LedgerPosition).order_by(ledger.c.topic, ledger.c.partition)
        return await self._rows(LedgerPosition, query)

    async def audit(self, *, limit: int) -> list[AuditEntry]:
        """Return administrative acts, newest first."""
        query = _columns(audit_log, AuditEntry).order_by(audit_log.c.id.desc()).limit(limit)
        return await self._rows(AuditEntry, query)

    async def loop_figures(self) -> LoopFigures:
        """Return the figures by which the links of the loop are judged; times are aware, counts exact."""
        o, j, t, now = outbox.c, training_jobs.c, model_training_events.c, sa.func.now()
        waiting = sa.select(o.service, sa.func.count().label("rows"), sa.func.min(o.created_at).label("oldest")).where(
            o.published_at.is_(None)
        )
        expired = _columns(training_jobs, ExpiredLease).where(j.status == "running", j.lease_until < now)
        failed = _columns(model_training_events, FailedTraining).where(
            t.status == "failed", t.end_time > now - sa.text("interval '1 hour'")
        )
        return LoopFigures(
            now=(await self._connection.execute(sa.select(now))).scalar_one(),
            outbox=tuple(await self._rows(WaitingAnnouncements, waiting.group_by(o.service))),
            expired_leases=tuple(await self._rows(ExpiredLease, expired)),
            failed_trainings=tuple(await self._rows(FailedTraining, failed)),
        )

    async def acknowledgements(self) -> list[Acknowledgement]:
        """Return when each replica first served each desired state."""
        query = _columns(replica_acknowledgements, Acknowledgement)
        return await self._rows(Acknowledgement, query.order_by(replica_acknowledgements.c.served_since))

    async def _rows(self, kind: type[Row], query: sa.Executable) -> list[Row]:
        return [kind(**row) for row in (await self._connection.execute(query)).mappings()]


def _columns(table: sa.Table, kind: type[msgspec.Struct]) -> sa.Select[Any]:
    """Select the columns that ``kind`` has fields for."""
    return sa.select(*(table.c[name] for name in kind.__struct_fields__))


def _newest_quality() -> sa.FromClause:
    """Return a subquery for the newest judgement of each data set of the outer query."""
    q = data_quality_metrics.c
    newest = sa.select(data_quality_metrics).where(q.training_dataset_id == training_datasets.c.id)
    return newest.order_by(q.assessment_date.desc()).limit(1).lateral("newest_quality")


_NEWEST_QUALITY = _newest_quality()


def _of_model(query: sa.Select[Any], column: sa.ColumnElement[Any], value: str | None) -> sa.Select[Any]:
    return query if value is None else query.where(column == value)
