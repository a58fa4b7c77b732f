"""When a data set may be released or quarantined, and the sentences that say why not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import CommandRejectedError
from schemas.evaluations import EvaluationRecord, Factors
from schemas.vocabulary import DatasetReview, ThresholdDecision

if TYPE_CHECKING:
    from schemas.messages.control import ApproveDataset, QuarantineDataset
    from schemas.messages.envelope import OffsetRange
    from schemas.rows import ReviewedDataset
    from schemas.vocabulary import ModelType
    from streams.epochs.thresholds import Evaluation

LONGEST_REASON = 500


def checked_reason(reason: str) -> str:
    """Return the reason without blanks around it.

    Raises:
        CommandRejectedError: when nothing is said, or more than anybody reads.
    """
    said = reason.strip()
    if not 0 < len(said) <= LONGEST_REASON:
        message = f"say why, in 1 to {LONGEST_REASON} characters: whoever looks at the model later will ask"
        raise CommandRejectedError(message)
    return said


def check_approval(
    command: ApproveDataset, dataset: ReviewedDataset, evaluation: Evaluation, *, model_type: ModelType
) -> None:
    """Let through what waits for its quality and nothing else.

    Raises:
        CommandRejectedError: with how the data set stands.
    """
    if command.epoch is not None and command.epoch != dataset.epoch:
        raise CommandRejectedError(f"{model_type} collects epoch {dataset.epoch}, not {command.epoch}; only the open data set can be approved")  # fmt: skip
    if dataset.review is DatasetReview.APPROVED:
        raise CommandRejectedError(f"{model_type} epoch {dataset.epoch} was approved by {dataset.reviewed_by} already: {evaluation.sentence}")  # fmt: skip
    if evaluation.decision is not ThresholdDecision.WAITING_FOR_QUALITY:
        raise CommandRejectedError(f"{model_type} epoch {dataset.epoch} does not wait for its quality: {evaluation.sentence}")  # fmt: skip


def quarantined_ranges(
    command: QuarantineDataset,
    dataset: ReviewedDataset | None,
    collected: Sequence[OffsetRange],
    *,
    model_type: ModelType,
) -> tuple[OffsetRange, ...]:
    """Return which offsets are never to train; ``collected`` are those of the open data set.

    Raises:
        CommandRejectedError: when there is no such data set, or nothing in it, or it is quarantined already.
    """  # fmt: skip
    if dataset is None:
        raise CommandRejectedError(f"{model_type} has no data set of epoch {command.epoch}; `fincoach-learning datasets {model_type}` lists them")  # fmt: skip
    if dataset.review is DatasetReview.QUARANTINED:
        raise CommandRejectedError(f"{model_type} epoch {dataset.epoch} was quarantined by {dataset.reviewed_by} already")  # fmt: skip
    ranges = tuple(collected) if dataset.is_open else dataset.ranges or ()
    if not ranges:
        raise CommandRejectedError(f"{model_type} has collected nothing in epoch {dataset.epoch} yet, so there is nothing to quarantine")  # fmt: skip
    return ranges


def quarantine_sentence(dataset: ReviewedDataset, *, model_type: ModelType, by: str, trainings: Sequence[str]) -> str:
    """Return what the quarantine leads to, in a sentence or two."""
    said = f"{model_type} epoch {dataset.epoch} is quarantined by {by}: its {dataset.data_count} data points reach no further training"
    if dataset.is_open:
        return f"{said}; epoch {dataset.epoch + 1} collects behind it"
    if trainings:
        return f"{said}. {len(trainings)} training(s) began with it before; if a version of theirs is served, `fincoach-learning rollback {model_type}`"
    return f"{said}; its training, which has not begun, will find nothing new"


def quarantine_evaluation(dataset: ReviewedDataset, *, by: str, reason: str) -> EvaluationRecord:
    """Return the decision as the history of decisions and the data set itself keep it."""
    return EvaluationRecord(
        decision=ThresholdDecision.QUARANTINED,
        counted=dataset.data_count,
        effective_count=float(dataset.data_count),
        threshold=dataset.threshold,
        quality_score=dataset.quality_score,
        factors=Factors(
            counted=dataset.data_count,
            threshold=dataset.threshold,
            quality_score=dataset.quality_score,
            review=DatasetReview.QUARANTINED,
            reviewed_by=by,
        ),
        sentence=f"{dataset.data_count} of {dataset.threshold}, quarantined by {by} ({reason}): not trained",
    )
