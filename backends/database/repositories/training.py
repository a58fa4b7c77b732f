"""The training queue and the trainings' own rows: leases with fencing tokens, verdicts, and who the champion is.

A run carries all jobs of one model that wait. Its fence is higher than that of every earlier run of the model;
each write names it, so what a woken zombie writes touches no row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from backends.database.figures import storable_performance
from schemas.errors import LostLeaseError
from schemas.messages.envelope import OffsetRange
from schemas.tables import (
    epochs,
    ledger,
    model_training_events,
    model_versions,
    rollout_decisions,
    snapshots,
    training_datasets,
    training_jobs,
)
from schemas.vocabulary import DatasetReview, JobStatus, ModelType, TrainingStatus, Verdict

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

DECISION_PATIENCE = "interval '2 minutes'"
_LEASE_LOCK_NAMESPACE = 0x7EA5
_JOB = training_jobs.c


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to queue, for a crossing (``epoch``) or for a command (``command_id``)."""

    model_type: ModelType
    ranges: tuple[OffsetRange, ...]
    correlation_id: UUID
    epoch: int | None = None
    command_id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A leased training: ``attempt`` counts from 1, ``fence`` proves the lease, ``by_command`` says that a person asked for it."""

    run_id: UUID
    model_type: ModelType
    epochs: tuple[int, ...]
    ranges: tuple[OffsetRange, ...]
    fence: int
    attempt: int
    correlation_id: UUID
    by_command: bool = False


class QuarantinedDataset(NamedTuple):
    """A data set that must not train, and the offsets that no snapshot may read."""

    epoch: int
    by: str
    reason: str
    ranges: tuple[OffsetRange, ...]


@dataclass(frozen=True, kw_only=True)
class ChampionVersion:
    """The version that is served now; ``cut`` is the end of the data that it has seen (empty for a baseline)."""

    version: str
    address: str
    artifact_digest: str
    cut: tuple[OffsetRange, ...]
    checkpoint: str | None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The ending of a run, as stored in ``model_training_events``."""

    verdict: Verdict
    reasons: tuple[str, ...]
    metrics: dict[str, Any]
    samples: int = 0
    score: float | None = None
    artifact_address: str | None = None
    artifact_digest: str | None = None


class TrainingRepository:
    """Reads and writes jobs and trainings over one connection; commits nothing."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_job(self, job: NewJob) -> UUID | None:
        """Queue ``job`` and return its id, or None if its epoch or command has been queued before."""
        values = {
            "model_type": job.model_type, "epoch": job.epoch, "command_id": job.command_id, "correlation_id": job.correlation_id,
            "ranges": msgspec.to_builtins(job.ranges),
        }  # fmt: skip
        added = insert(training_jobs).values(**values).on_conflict_do_nothing().returning(_JOB.id)
        job_id: UUID | None = await self._scalar(added)
        return job_id

    async def lease(self, owner: str, *, models: Collection[ModelType], lease_seconds: float) -> Run | None:
        """Take the model whose jobs wait longest (commands first) and return its run, or None if nothing is due.

        A model is due when none of its jobs runs under a valid lease, its last back-off is over, and the deployer has
        decided about its last winner: a candidate that is compared with an outgoing champion is turned away.
        The wait for a decision is at most two minutes, so a deployer that is away stops no training. Models that are
        not in ``models`` are left to other trainers.
        """
        for model_type in await self._due_models(models):
            locked = sa.func.pg_try_advisory_xact_lock(_LEASE_LOCK_NAMESPACE, sa.func.hashtext(model_type))
            if await self._scalar(sa.select(locked)) and model_type in await self._due_models(models):
                run = await self._take(model_type, owner, lease_seconds=lease_seconds)
                if run is not None:
                    return run
        return None

    async def _due_models(self, models: Collection[ModelType]) -> list[str]:
        now = sa.func.now()
        queued = _JOB.status == JobStatus.QUEUED
        living = sa.and_(_JOB.status == JobStatus.RUNNING, _JOB.lease_until >= now)
        question = (
            sa.select(_JOB.model_type)
            .where(_JOB.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]), _JOB.model_type.in_(models))
            .group_by(_JOB.model_type)
            .having(sa.not_(sa.func.bool_or(living)))
            .having(sa.func.coalesce(sa.func.max(_JOB.not_before).filter(queued), now) <= now)
            .having(sa.not_(_undecided_winner(_JOB.model_type)))
            .order_by(sa.func.bool_or(_JOB.command_id.is_not(None)).desc(), sa.func.min(_JOB.created_at))
        )
        return list((await self._connection.execute(question)).scalars())

    async def _take(self, model_type: ModelType, owner: str, *, lease_seconds: float) -> Run | None:
        open_jobs = sa.and_(_JOB.model_type == model_type, _JOB.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
        # Lock the jobs before using them: the last holder of the lease may be finishing right now, and a training that has
        # ended must not continue.
        locked = sa.select(_JOB.id, _JOB.training_event_id).where(open_jobs).with_for_update()
        jobs = (await self._connection.execute(locked)).all()
        if not jobs:
            return None
        run_id = next((job.training_event_id for job in jobs if job.training_event_id), None) or uuid4()
        fence = sa.select(sa.func.max(_JOB.fence) + 1).where(_JOB.model_type == model_type).scalar_subquery()
        taken = (
            sa.update(training_jobs)
            .where(_JOB.id.in_([job.id for job in jobs]))
            .values(
                status=JobStatus.RUNNING, fence=fence, leased_by=owner, attempts=_JOB.attempts + 1, training_event_id=run_id,
                lease_until=_from_now(lease_seconds), updated_at=sa.func.now(),
            )
            .returning(training_jobs)
        )  # fmt: skip
        run = _run(run_id, (await self._connection.execute(taken)).mappings().all())
        await self._begin_event(run)
        return run

    async def _begin_event(self, run: Run) -> None:
        dataset = (
            sa.select(epochs.c.training_dataset_id)
            .where(epochs.c.model_type == run.model_type, epochs.c.epoch == (run.epochs[-1] if run.epochs else None))
            .scalar_subquery()
        )
        changing = {
            "status": TrainingStatus.IN_PROGRESS, "epochs": list(run.epochs), "training_dataset_id": dataset, "start_time": sa.func.now(),
            "end_time": None, "error": None,
        }  # fmt: skip
        added = insert(model_training_events).values(
            id=run.run_id, model_type=run.model_type, correlation_id=run.correlation_id, **changing
        )
        await self._connection.execute(added.on_conflict_do_update(index_elements=["id"], set_=changing))

    async def renew(self, run: Run, *, lease_seconds: float) -> None:
        """Prolong the lease.

        Raises:
            LostLeaseError: another run has taken over.
        """
        await self._move(run, lease_until=_from_now(lease_seconds))

    async def finish(self, run: Run, ending: Ending) -> None:
        """Record the verdict and close the run's jobs.

        Raises:
            LostLeaseError: another run has taken over; nothing may be committed.
        """
        await self._move(run, status=JobStatus.DONE, lease_until=None)
        await self._connection.execute(_event_of(run).values(
            status=TrainingStatus.COMPLETED, end_time=sa.func.clock_timestamp(), verdict=ending.verdict, reasons=list(ending.reasons),
            performance_metrics=ending.metrics, training_data_size=ending.samples, validation_score=storable_performance(ending.score),
            model_path=ending.artifact_address, artifact_digest=ending.artifact_digest,
        ))  # fmt: skip

    async def give_back(self, run: Run) -> None:
        """Queue the run's jobs again as if it had not begun, because its process was asked to stop.

        Raises:
            LostLeaseError: another run has taken over.
        """
        await self._move(run, status=JobStatus.QUEUED, lease_until=None, attempts=_JOB.attempts - 1)
        await self._connection.execute(_event_of(run).values(status=TrainingStatus.PENDING))

    async def retry(self, run: Run, error: str, *, delay_seconds: float) -> None:
        """Queue the run's jobs again after a back-off.

        Raises:
            LostLeaseError: another run has taken over.
        """
        await self._move(run, status=JobStatus.QUEUED, lease_until=None, not_before=_from_now(delay_seconds))
        await self._connection.execute(_event_of(run).values(status=TrainingStatus.PENDING, error=error))

    async def fail(self, run: Run, error: str) -> None:
        """Close the run as failed, with all its jobs.

        Raises:
            LostLeaseError: another run has taken over.
        """
        await self._move(run, status=JobStatus.FAILED, lease_until=None)
        await self._connection.execute(_event_of(run).values(
            status=TrainingStatus.FAILED, end_time=sa.func.clock_timestamp(), verdict=Verdict.FAILED, error=error, reasons=[error],
        ))  # fmt: skip

    async def note_snapshot(self, run: Run, snapshot_id: UUID, *, champion: ChampionVersion | None, seed: int) -> None:
        """Store the snapshot of the run in its row."""
        await self._connection.execute(_event_of(run).values(
            snapshot_id=snapshot_id, seed=seed, champion_digest=champion.artifact_digest if champion else None,
            previous_model_path=champion.address if champion else None,
        ))  # fmt: skip

    async def _move(self, run: Run, **values: Any) -> None:  # noqa: ANN401 - columns of the jobs
        moved = await self._connection.execute(
            sa.update(training_jobs)
            .where(_JOB.training_event_id == run.run_id, _JOB.fence == run.fence, _JOB.status == JobStatus.RUNNING)
            .values(updated_at=sa.func.now(), **values)
            .returning(_JOB.id)
        )
        if moved.first() is None:
            raise LostLeaseError(run_id=str(run.run_id), fence=run.fence)

    async def champion(self, model_type: ModelType) -> ChampionVersion | None:
        """Return the version that is served now, or None before the deployer has made the baseline."""
        v, t = model_versions.c, model_training_events.c
        joined = model_versions.outerjoin(model_training_events, t.id == v.training_event_id).outerjoin(
            snapshots, snapshots.c.id == t.snapshot_id
        )
        question = sa.select(
            v.version, v.model_path, v.artifact_digest, snapshots.c.cut, t.performance_metrics
        ).select_from(joined)
        row = (await self._connection.execute(question.where(v.model_type == model_type, v.is_active))).first()
        if row is None:
            return None
        return ChampionVersion(
            version=row.version, address=row.model_path, artifact_digest=row.artifact_digest, cut=ranges_of(row.cut or []),
            checkpoint=(row.performance_metrics or {}).get("checkpoint"),
        )  # fmt: skip

    async def epoch_ranges(self, model_type: ModelType, *, up_to_epoch: int) -> tuple[OffsetRange, ...]:
        """Return the ranges of all crossings of a model up to a given one."""
        question = sa.select(epochs.c.ranges).where(epochs.c.model_type == model_type, epochs.c.epoch <= up_to_epoch)
        return _flat(ranges_of(ranges) for ranges in (await self._connection.execute(question)).scalars())

    async def quarantined(self, model_type: ModelType) -> list[QuarantinedDataset]:
        """Return the quarantined data sets of a model, oldest first."""
        d = training_datasets.c
        question = sa.select(d.epoch, d.reviewed_by, d.review_reason, d.quarantined_ranges).where(
            d.dataset_type == model_type, d.review == DatasetReview.QUARANTINED
        )
        rows = await self._connection.execute(question.order_by(d.epoch))
        return [
            QuarantinedDataset(row.epoch, row.reviewed_by, row.review_reason, ranges_of(row.quarantined_ranges or []))
            for row in rows
        ]

    async def archived(self, topic: str) -> tuple[OffsetRange, ...]:
        """Return for each partition of ``topic`` the range, from offset 0, that is archived by now."""
        question = sa.select(ledger).where(ledger.c.topic == topic, ledger.c.next_offset > 0)
        rows = await self._connection.execute(question.order_by(ledger.c.generation, ledger.c.partition))
        return tuple(
            OffsetRange(topic=topic, generation=row.generation, partition=row.partition, from_offset=0, to_offset=row.next_offset)
            for row in rows
        )  # fmt: skip

    async def add_snapshot(self, run: Run, *, ranges: Sequence[OffsetRange], cut: Sequence[OffsetRange]) -> UUID:
        """Store the ranges of a snapshot before it is read, and return its id."""
        added = snapshots.insert().values(
            model_type=run.model_type, ranges=msgspec.to_builtins(ranges), epochs=list(run.epochs), cut=msgspec.to_builtins(cut)
        )  # fmt: skip
        snapshot_id: UUID = await self._scalar(added.returning(snapshots.c.id))
        return snapshot_id

    async def store_snapshot(self, snapshot_id: UUID, *, digest: str, uri: str, rows: int) -> None:
        """Record where the snapshot is stored and what it holds."""
        changed = sa.update(snapshots).where(snapshots.c.id == snapshot_id).values(digest=digest, uri=uri, rows=rows)
        await self._connection.execute(changed)

    async def job_counts(self) -> dict[str, int]:
        """Return how many jobs are in each status."""
        question = sa.select(_JOB.status, sa.func.count()).group_by(_JOB.status)
        return {status: count for status, count in await self._connection.execute(question)}  # noqa: C416 - rows, not pairs

    async def _scalar(self, statement: sa.Executable) -> Any:  # noqa: ANN401 - whatever is selected
        return (await self._connection.execute(statement)).scalar()


def ranges_of(rows: Iterable[Any]) -> tuple[OffsetRange, ...]:
    """Return ranges from their JSON form."""
    return msgspec.convert(list(rows), tuple[OffsetRange, ...])


def _flat(groups: Iterable[tuple[OffsetRange, ...]]) -> tuple[OffsetRange, ...]:
    return tuple(item for group in groups for item in group)


def _run(run_id: UUID, jobs: Sequence[Any]) -> Run:
    oldest = min(jobs, key=lambda job: job["created_at"])
    return Run(
        run_id=run_id,
        model_type=oldest["model_type"],
        epochs=tuple(sorted(job["epoch"] for job in jobs if job["epoch"] is not None)),
        ranges=tuple(sorted(_flat(ranges_of(job["ranges"]) for job in jobs))),
        fence=oldest["fence"],
        attempt=max(job["attempts"] for job in jobs),
        correlation_id=oldest["correlation_id"] or run_id,
        by_command=any(job["command_id"] is not None for job in jobs),
    )


def _event_of(run: Run) -> sa.Update:
    return sa.update(model_training_events).where(model_training_events.c.id == run.run_id)


def _undecided_winner(model_type: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return a condition: a training of the last two minutes won, and the deployer has not decided about it yet."""
    run, decision = model_training_events.c, rollout_decisions.c
    decided = sa.exists().where(decision.training_event_id == run.id)
    return sa.exists().where(
        run.model_type == model_type,
        run.verdict == Verdict.CANDIDATE_WINS,
        run.end_time > sa.func.now() - sa.text(DECISION_PATIENCE),
        sa.not_(decided),
    )


def _from_now(seconds: float) -> sa.ColumnElement[dt.datetime]:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
