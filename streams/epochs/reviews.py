"""When a data set may be approved or quarantined, and the messages that say why not. Pure."""

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
    """Return the reason without surrounding blanks.

    Raises:
        CommandRejectedError: the reason is empty or too long.
    """
    stripped = reason.strip()
    if not 0 < len(stripped) <= LONGEST_REASON:
        message = f"say why, in 1 to {LONGEST_REASON} characters, for people who look at the model later"
        raise CommandRejectedError(message)
    return stripped


def check_approval(
    command: ApproveDataset, dataset: ReviewedDataset, evaluation: Evaluation, *, model_type: ModelType
) -> None:
    """Check that the open data set waits for its quality, the only case in which it can be approved.

    Raises:
        CommandRejectedError: the message says what the state of the data set is.
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
    """Return the offsets that must never train; ``collected`` are those of the open data set.

    Raises:
        CommandRejectedError: the data set does not exist, is empty, or is quarantined already.
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
    """Return the consequences of the quarantine in a sentence or two."""
    done = f"{model_type} epoch {dataset.epoch} is quarantined by {by}: its {dataset.data_count} data points reach no further training"
    if dataset.is_open:
        return f"{done}; epoch {dataset.epoch + 1} collects behind it"
    if trainings:
        return f"{done}. {len(trainings)} training(s) began with it before; if a version of theirs is served, `fincoach-learning rollback {model_type}`"
    return f"{done}; its training, which has not begun, will find nothing new"


def quarantine_evaluation(dataset: ReviewedDataset, *, by: str, reason: str) -> EvaluationRecord:
    """Return the decision as the history and the data set record it."""
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
