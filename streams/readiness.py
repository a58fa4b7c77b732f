"""The one transaction of an epoch: lock, take panes, ask the rule after each, and commit what it decides.

An epoch is a set of whole panes. Its panes are taken in the order in which they were closed; those of one partition
join without a hole. At the first pane after which the rule holds, everything is written together: the epoch with its
offset ranges, the evaluation with its factors, the judgement, the closed and the next data set, the moved cursors and
``ThresholdReached`` in the outbox. Otherwise the panes are accumulated, so that the next look reads only new ones.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from backends.database.repositories.datasets import Cursor, DatasetRepository, OpenDataset, PaneSlice
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from fincoach_events.identifiers import new_event_id
from schemas.errors import FinCoachError
from schemas.messages.envelope import OffsetRange
from schemas.messages.training import ThresholdReached
from schemas.topics import BEHAVIORAL_EVENTS, THRESHOLD_REACHED
from schemas.vocabulary import ModelType, ThresholdDecision
from streams.panes import decode_pane, decode_statistics, encode_statistics
from streams.quality import QualityAssessment
from streams.sketches import DatasetStatistics, excess, merged
from streams.thresholds import Circumstances, Evaluation, ThresholdRule, decide

if TYPE_CHECKING:
    from backends.database.unit_of_work import UnitOfWork

log = get_logger("streams.readiness")
MOST_PANES = 500  # of each partition in one transaction; a longer backlog takes several
BLOCKED = (ThresholdDecision.WAITING_FOR_QUALITY, ThresholdDecision.COOLING_DOWN)

Judge = Callable[[DatasetStatistics], QualityAssessment | None]


class PaneHoleError(FinCoachError):
    """The panes of a partition do not join: one is missing, or two overlap."""


@dataclass(slots=True, kw_only=True)
class DatasetProgress:
    """An open data set after taking panes: what it holds, where its cursors stand, and what the rule says."""

    dataset: OpenDataset
    cursors: dict[int, Cursor]
    statistics: DatasetStatistics
    quality: QualityAssessment | None
    evaluation: Evaluation
    taken: int = 0
    is_complete: bool = True

    def ranges(self) -> tuple[OffsetRange, ...]:
        """Return the offsets of the open epoch, by partition."""
        return tuple(
            OffsetRange(
                topic=BEHAVIORAL_EVENTS.name,
                generation=BEHAVIORAL_EVENTS.generation,
                partition=partition,
                from_offset=cursor.epoch_from_offset,
                to_offset=cursor.next_offset,
            )
            for partition, cursor in sorted(self.cursors.items())
            if cursor.next_offset > cursor.epoch_from_offset
        )


def take_panes(
    dataset: OpenDataset,
    cursors: dict[int, Cursor],
    panes: Sequence[PaneSlice],
    *,
    model_type: ModelType,
    judge: Judge,
) -> DatasetProgress:
    """Take ``panes`` into ``dataset`` up to the first after which the rule holds; ``cursors`` move along. Pure.

    Raises:
        PaneHoleError: when the panes of a partition do not join.
    """
    progress = _judged(dataset, cursors, decode_statistics(dataset.accumulated), judge=judge)
    if progress.evaluation.fired:
        progress.is_complete = False
        return progress
    taken = 0
    ordered, is_whole = in_order(panes, most=MOST_PANES)
    statistics = progress.statistics
    for pane in ordered:
        _move(cursors[pane.partition], pane)
        taken += 1
        added = decode_pane(pane.sketches).datasets.get(model_type) if pane.sketches else None
        if added is None:
            continue
        statistics = merged(statistics, added)
        if statistics.counts.counted >= dataset.threshold:
            progress = _judged(dataset, cursors, statistics, judge=judge)
            if progress.evaluation.fired:
                break
    if progress.statistics is not statistics:
        progress = _judged(dataset, cursors, statistics, judge=judge)
    progress.taken = taken
    progress.is_complete = is_whole and taken == len(ordered)
    return progress


def in_order(panes: Iterable[PaneSlice], *, most: int) -> tuple[list[PaneSlice], bool]:
    """Return panes as they were closed, those of a partition by offset, and whether these are all.

    Where a partition has more panes than the ``most`` that were read, what follows its last one is left for the
    next look: its own next pane may belong before it. Panes of a partition must come by offset.
    """
    by_partition: dict[int, list[PaneSlice]] = {}
    for pane in panes:
        by_partition.setdefault(pane.partition, []).append(pane)
    last_read = {partition: group[-1] for partition, group in by_partition.items() if len(group) >= most}
    ordered: list[PaneSlice] = []
    for pane in heapq.merge(
        *by_partition.values(), key=lambda item: (item.closed_at, item.partition, item.from_offset)
    ):
        ordered.append(pane)
        if last_read.get(pane.partition) is pane:
            break
    return ordered, not last_read


async def accumulate(repository: DatasetRepository, progress: DatasetProgress, *, model_type: ModelType) -> None:
    """Keep what was taken, and the evaluation where it tells something new."""
    dataset, evaluation = progress.dataset, progress.evaluation
    says_more = evaluation.decision != dataset.last_decision or (evaluation.decision in BLOCKED and progress.taken > 0)
    if progress.taken == 0 and not says_more:
        return
    await repository.move_cursors(progress.cursors)
    await repository.update_open(dataset.id, _columns(progress))
    if says_more:
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
        dataset.id, _columns(progress), epoch=dataset.epoch + 1, threshold=dataset.threshold
    )
    for cursor in progress.cursors.values():
        cursor.epoch_from_offset = cursor.next_offset
    await repository.move_cursors(progress.cursors)
    await work.publish(THRESHOLD_REACHED, model_type, reached)
    METRICS.streams_epochs.labels(model_type=model_type).inc()
    log.info("epoch_closed", model_type=model_type, epoch=dataset.epoch, sentence=evaluation.sentence)
    return reached


def threshold_reached(
    progress: DatasetProgress, *, model_type: ModelType, evaluation_id: UUID, now: dt.datetime
) -> ThresholdReached:
    """Return the message that names the epoch and its data. It begins the chain of a training."""
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


def _judged(
    dataset: OpenDataset, cursors: dict[int, Cursor], statistics: DatasetStatistics, *, judge: Judge
) -> DatasetProgress:
    rule = ThresholdRule(
        threshold=dataset.threshold, quality_gate=dataset.quality_gate, cool_down_seconds=dataset.cool_down_seconds
    )
    quality = judge(statistics)
    now = Circumstances(
        seconds_since_epoch=dataset.seconds_since_epoch, review=dataset.review, reviewed_by=dataset.reviewed_by
    )
    evaluation = decide(
        rule,
        now,
        counted=statistics.counts.counted,
        quality=quality,
        users=len(statistics.heaviest),
        excess=lambda cap: excess(statistics.heaviest, cap),
    )
    return DatasetProgress(
        dataset=dataset, cursors=cursors, statistics=statistics, quality=quality, evaluation=evaluation
    )


def _move(cursor: Cursor, pane: PaneSlice) -> None:
    if pane.from_offset != cursor.next_offset:
        message = (
            f"partition {pane.partition}: the next pane begins at {pane.from_offset}, but panes are taken up to "
            f"{cursor.next_offset}"
        )
        raise PaneHoleError(message)
    cursor.next_offset = pane.to_offset


def _columns(progress: DatasetProgress) -> dict[str, Any]:
    evaluation = progress.evaluation
    return {
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
        evaluation={
            "decision": evaluation.decision,
            "counted": evaluation.counted,
            "effective_count": evaluation.effective_count,
            "threshold": evaluation.threshold,
            "quality_score": evaluation.quality_score,
            "factors": msgspec.to_builtins(evaluation.factors),
            "sentence": evaluation.sentence,
        },
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
