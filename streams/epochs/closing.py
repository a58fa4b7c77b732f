"""Writes what an evaluation decided, all in one transaction.

Once the rule holds (:mod:`streams.epochs.collecting`), the epoch is written whole: its offset ranges, the evaluation with its
factors, the judgement, the closed and the next data set, the moved cursors and ``ThresholdReached`` in the outbox.
Otherwise the panes are accumulated, so that the next evaluation reads only new ones.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from fincoach_events.identifiers import new_event_id
from schemas.messages.alerts import AlertCleared, AlertRaised
from schemas.messages.training import ThresholdReached
from schemas.topics import ALERTS, THRESHOLD_REACHED
from schemas.vocabulary import ModelType, Service
from streams.epochs.collecting import begin_next_epoch
from streams.panes import encode_statistics

if TYPE_CHECKING:
    from backends.database.repositories.datasets import DatasetRepository
    from backends.database.unit_of_work import UnitOfWork
    from streams.epochs.collecting import DatasetProgress
    from streams.epochs.thresholds import Evaluation
    from streams.quality.assessment import QualityAssessment

log = get_logger("streams.epochs.closing")
SHARE_ALERT = "user_share_capped"


async def accumulate(
    work: UnitOfWork,
    repository: DatasetRepository,
    progress: DatasetProgress,
    *,
    model_type: ModelType,
    now: dt.datetime,
) -> None:
    """Save the panes taken and the newest evaluation; add it to the history only if it differs enough from the last entry."""
    dataset, evaluation = progress.dataset, progress.evaluation
    is_news = evaluation.differs_from(dataset.told)
    if progress.taken == 0 and not is_news and evaluation.sentence == dataset.sentence:
        return
    columns = _columns(progress, recorded=evaluation.recorded() if is_news else dataset.told)
    if await _alarmed(work, progress, model_type=model_type, now=now):
        columns["share_alert_at"] = now
    await _keep_position(repository, progress)
    await repository.update_open(dataset.id, columns)
    if is_news:
        await _save_judgement(repository, progress)
        log.info(
            "dataset_evaluated",
            model_type=model_type,
            epoch=dataset.epoch,
            decision=evaluation.decision,
            sentence=evaluation.sentence,
        )


async def close_epoch(
    work: UnitOfWork,
    repository: DatasetRepository,
    progress: DatasetProgress,
    *,
    model_type: ModelType,
    now: dt.datetime,
) -> ThresholdReached:
    """Commit the crossing: epoch, evaluation, judgement, data sets, cursors, and the message in the outbox."""
    dataset, evaluation = progress.dataset, progress.evaluation
    evaluation_id = await _save_judgement(repository, progress)
    reached = threshold_reached(progress, model_type=model_type, evaluation_id=evaluation_id, now=now)
    await repository.save_epoch(
        epoch=dataset.epoch,
        ranges=reached.ranges,
        values={
            "training_dataset_id": dataset.id,
            "evaluation_id": evaluation_id,
            "event_id": reached.event_id,
            "counted": reached.counted,
            "threshold": reached.threshold,
            "quality_score": reached.quality_score,
        },
    )
    await repository.close_and_open_next(
        dataset.id,
        _columns(progress, recorded=evaluation.recorded()),
        epoch=dataset.epoch + 1,
        threshold=evaluation.factors.configured,
    )
    begin_next_epoch(progress.cursors)
    await _keep_position(repository, progress)
    await work.publish(THRESHOLD_REACHED, model_type, reached)
    if await _alarmed(work, progress, model_type=model_type, now=now) or dataset.share_alert_at is not None:
        await work.publish(ALERTS, model_type, share_alert(AlertCleared, evaluation, model_type=model_type, now=now))
    METRICS.streams_epochs.labels(model_type=model_type).inc()
    log.info("epoch_closed", model_type=model_type, epoch=dataset.epoch, sentence=evaluation.sentence)
    return reached


def threshold_reached(
    progress: DatasetProgress, *, model_type: ModelType, evaluation_id: UUID, now: dt.datetime
) -> ThresholdReached:
    """Return the message that announces the epoch and its data. It starts the correlation chain of a training."""
    event_id = new_event_id()
    dimensions = progress.quality.dimensions if progress.quality else {}
    return ThresholdReached(
        event_id=event_id,
        occurred_at=now,
        correlation_id=event_id,
        causation_id=evaluation_id,
        model_type=model_type,
        epoch=progress.dataset.epoch,
        training_dataset_id=progress.dataset.id,
        evaluation_id=evaluation_id,
        counted=progress.evaluation.counted,
        threshold=progress.evaluation.threshold,
        quality_score=progress.evaluation.quality_score or 0.0,
        quality={name: value for name, value in dimensions.items() if value is not None},
        ranges=progress.ranges(),
    )


def share_alert(
    kind: type[AlertRaised | AlertCleared], evaluation: Evaluation, *, model_type: ModelType, now: dt.datetime
) -> AlertRaised | AlertCleared:
    """Return the alert that single users give too much, or its end with the epoch. It names no user."""
    f = evaluation.factors
    facts = {
        "counted": f.counted,
        "withheld": f.withheld,
        "user_cap": f.user_cap,
        "users": f.users,
        "threshold": f.threshold,
    }
    detail = (
        f"{f.withheld} of {f.counted} data points are beyond {f.user_cap} of their user and do not count"
        f" towards {f.threshold}; they are archived all the same"
    )
    return kind(
        event_id=new_event_id(), occurred_at=now, name=SHARE_ALERT, subject=model_type, service=Service.STREAMS, detail=detail, facts=facts
    )  # fmt: skip


def share_alert_ends(*, model_type: ModelType, by: str, now: dt.datetime) -> AlertCleared:
    """Return the end of the alert about single users, after a person quarantined their data set."""
    return AlertCleared(
        event_id=new_event_id(), occurred_at=now, name=SHARE_ALERT, subject=model_type, service=Service.STREAMS,
        detail=f"{by} has quarantined the data set in which single users gave too much",
    )  # fmt: skip


async def _alarmed(work: UnitOfWork, progress: DatasetProgress, *, model_type: ModelType, now: dt.datetime) -> bool:
    """Raise the alert once per epoch; return whether it was raised now."""
    is_news = progress.evaluation.withholds_much and progress.dataset.share_alert_at is None
    if is_news:
        alert = share_alert(AlertRaised, progress.evaluation, model_type=model_type, now=now)
        await work.publish(ALERTS, model_type, alert)
    return is_news


async def _keep_position(repository: DatasetRepository, progress: DatasetProgress) -> None:
    if progress.taken or progress.evaluation.fired:
        await repository.move_cursors(progress.cursors)
    if progress.arrivals is not None:
        await repository.save_arrivals(progress.arrivals)


def _columns(progress: DatasetProgress, *, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
    evaluation = progress.evaluation
    return {
        "evaluation": {**msgspec.to_builtins(evaluation), "told": recorded},
        "data_count": evaluation.counted,
        "threshold": evaluation.threshold,
        "is_ready_for_training": evaluation.fired,
        "threshold_reached": evaluation.effective_count >= evaluation.threshold,
        "data_quality_score": evaluation.quality_score,
        "accumulated": encode_statistics(progress.statistics),
    }


async def _save_judgement(repository: DatasetRepository, progress: DatasetProgress) -> UUID:
    evaluation, quality = progress.evaluation, progress.quality
    if quality is not None:
        await repository.save_quality(progress.dataset.id, _quality_columns(quality))
    return await repository.save_evaluation(
        epoch=progress.dataset.epoch,
        evaluation=evaluation,
    )


def _quality_columns(quality: QualityAssessment) -> dict[str, Any]:
    return {
        **{f"{name}_score": value for name, value in quality.dimensions.items()},
        "overall_score": quality.score,
        "anomaly_count": quality.anomalies,
        "duplicate_count": quality.duplicates,
        "missing_values_count": quality.missing,
        "parts": quality.parts,
    }
