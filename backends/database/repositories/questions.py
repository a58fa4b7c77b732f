"""What people and programs ask of the database: lists for the command line, positions and counts for the status.

Read-only. Rows come back as plain dictionaries whose keys are column names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

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

Row = dict[str, Any]


class QuestionRepository:
    """Answers questions over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def versions(self, model_type: str | None) -> list[Row]:
        """Return known versions, newest first."""
        v = model_versions.c
        question = sa.select(
            v.model_type, v.version, v.kind, v.is_active, v.performance_current, v.performance_baseline, v.rollback_count,
            v.deployment_date, v.created_at, v.artifact_digest, v.training_event_id,
        )  # fmt: skip
        return await self._rows(
            _of_model(question, v.model_type, model_type).order_by(v.model_type, v.created_at.desc())
        )

    async def datasets(self, model_type: str | None, *, limit: int) -> list[Row]:
        """Return data sets with their newest quality, the open ones first."""
        d, newest = training_datasets.c, _newest_quality()
        n = newest.c
        question = sa.select(
            d.dataset_type, d.epoch, d.data_count, d.threshold, d.threshold_reached, d.is_ready_for_training, d.data_quality_score,
            n.completeness_score, n.consistency_score, n.validity_score, n.freshness_score, n.diversity_score, n.anomaly_count,
            n.duplicate_count, n.missing_values_count, d.last_training_date, d.created_at, d.updated_at, d.closed_at,
            d.review, d.reviewed_by, d.review_reason,
        ).select_from(training_datasets.outerjoin(newest, sa.true()))  # fmt: skip
        question = _of_model(question, d.dataset_type, model_type)
        return await self._rows(question.order_by(d.closed_at.desc().nulls_first(), d.dataset_type).limit(limit))

    async def evaluations(self, model_type: str | None, *, limit: int) -> list[Row]:
        """Return the newest evaluations of thresholds, with their sentences."""
        e = threshold_evaluations.c
        question = sa.select(
            e.model_type,
            e.epoch,
            e.decision,
            e.counted,
            e.threshold,
            e.quality_score,
            e.sentence,
            e.factors,
            e.evaluated_at,
        )
        return await self._rows(
            _of_model(question, e.model_type, model_type).order_by(e.evaluated_at.desc()).limit(limit)
        )

    async def explanation(self, model_type: str, *, epoch: int | None) -> list[Row]:
        """Return one data set (the open one without ``epoch``) with its last evaluation; none where there is no such epoch.

        ``quality_parts`` and ``assessed_at`` are of its newest judgement that was written down; None before the first.
        """
        d, newest = training_datasets.c, _newest_quality()
        question = sa.select(
            d.dataset_type.label("model_type"), d.epoch, d.updated_at, d.closed_at, d.evaluation,
            newest.c.parts.label("quality_parts"), newest.c.assessment_date.label("assessed_at"),
        ).select_from(training_datasets.outerjoin(newest, sa.true()))  # fmt: skip
        wanted = d.closed_at.is_(None) if epoch is None else d.epoch == epoch
        return await self._rows(question.where(d.dataset_type == model_type, wanted))

    async def thresholds(self, model_type: str | None = None) -> list[Row]:
        """Return the rules in force."""
        t = thresholds.c
        return await self._rows(_of_model(sa.select(thresholds), t.model_type, model_type).order_by(t.model_type))

    async def trainings(self, model_type: str | None, *, limit: int) -> list[Row]:
        """Return trainings, newest first."""
        t = model_training_events.c
        question = sa.select(
            t.id, t.model_type, t.status, t.verdict, t.epochs, t.training_data_size, t.validation_score, t.start_time, t.end_time,
            t.reasons, t.performance_metrics, t.error, t.created_at,
        )  # fmt: skip
        return await self._rows(
            _of_model(question, t.model_type, model_type).order_by(t.created_at.desc()).limit(limit)
        )

    async def jobs(self) -> list[Row]:
        """Return training jobs that wait or run, oldest first."""
        j = training_jobs.c
        question = sa.select(
            j.id, j.model_type, j.epoch, j.status, j.attempts, j.leased_by, j.lease_until, j.not_before, j.created_at
        )
        return await self._rows(question.where(j.status.in_(("queued", "running"))).order_by(j.created_at))

    async def events(self, *, user_id: UUID | None, event_type: str | None, limit: int) -> list[Row]:
        """Return archived behavioural events, newest first."""
        e = behavioral_events.c
        question = sa.select(
            e.event_id,
            e.occurred_at,
            e.event_type,
            e.interaction_type,
            e.user_id,
            e.consent,
            e.source,
            e.partition,
            e.offset,
        )
        if user_id is not None:
            question = question.where(e.user_id == user_id)
        if event_type is not None:
            question = question.where(e.event_type == event_type)
        return await self._rows(question.order_by(e.archived_at.desc(), e.offset.desc()).limit(limit))

    async def decisions(self, model_type: str | None, *, limit: int) -> list[Row]:
        """Return rollout decisions, newest first."""
        r = rollout_decisions.c
        return await self._rows(
            _of_model(sa.select(rollout_decisions), r.model_type, model_type).order_by(r.decided_at.desc()).limit(limit)
        )

    async def deployments(self) -> list[Row]:
        """Return the desired state of each model."""
        d, v = deployments.c, model_versions
        active, previous = v.alias("active"), v.alias("previous")
        joined = deployments.join(active, active.c.id == d.active_version_id).outerjoin(
            previous, previous.c.id == d.previous_version_id
        )
        question = sa.select(
            d.model_type,
            d.sequence,
            d.phase,
            active.c.version,
            active.c.kind,
            previous.c.version.label("previous_version"),
            d.updated_at,
        )
        return await self._rows(question.select_from(joined).order_by(d.model_type))

    async def replicas(self) -> list[Row]:
        """Return what the replicas last said."""
        return await self._rows(sa.select(replicas).order_by(replicas.c.replica_id))

    async def ledger(self) -> list[Row]:
        """Return the positions up to which work is committed."""
        question = sa.select(ledger)
        return await self._rows(question.order_by(ledger.c.topic, ledger.c.partition))

    async def audit(self, *, limit: int) -> list[Row]:
        """Return administrative acts, newest first."""
        return await self._rows(sa.select(audit_log).order_by(audit_log.c.id.desc()).limit(limit))

    async def loop_facts(self) -> Row:
        """Return the figures by which the links of the loop are judged; times are aware, counts exact."""
        o, j, now = outbox.c, training_jobs.c, sa.func.now()
        waiting = sa.select(o.room, sa.func.count().label("rows"), sa.func.min(o.created_at).label("oldest")).where(
            o.published_at.is_(None)
        )
        return {
            "now": await self._connection.scalar(sa.select(now)),
            "outbox": await self._rows(waiting.group_by(o.room)),
            "expired_leases": await self._rows(sa.select(j.id, j.model_type, j.lease_until).where(j.status == "running", j.lease_until < now)),
            "failed_trainings": await self._rows(
                sa.select(model_training_events.c.model_type, model_training_events.c.error, model_training_events.c.end_time)
                .where(model_training_events.c.status == "failed", model_training_events.c.end_time > now - sa.text("interval '1 hour'"))
            ),
        }  # fmt: skip

    async def acknowledgements(self) -> list[Row]:
        """Return when each replica first served each desired state."""
        return await self._rows(sa.select(replica_acknowledgements).order_by(replica_acknowledgements.c.served_since))

    async def _rows(self, question: sa.Executable) -> list[Row]:
        return [dict(row) for row in (await self._connection.execute(question)).mappings()]


def _newest_quality() -> sa.FromClause:
    """Return the newest judgement of each data set of the query that it is joined to."""
    q = data_quality_metrics.c
    newest = sa.select(data_quality_metrics).where(q.training_dataset_id == training_datasets.c.id)
    return newest.order_by(q.assessment_date.desc()).limit(1).lateral("newest_quality")


def _of_model(question: sa.Select[Any], column: sa.ColumnElement[Any], value: str | None) -> sa.Select[Any]:
    return question if value is None else question.where(column == value)
