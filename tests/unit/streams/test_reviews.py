"""Reviews: when a data set may be approved or quarantined."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

import msgspec
import pytest

from schemas.errors import CommandRejectedError
from schemas.messages.control import ApproveDataset, Command, QuarantineDataset
from schemas.messages.envelope import OffsetRange
from schemas.rows import ReviewedDataset
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import DatasetReview, ThresholdDecision
from streams.epochs.reviews import (
    LONGEST_REASON,
    check_approval,
    checked_reason,
    quarantine_sentence,
    quarantined_ranges,
)
from streams.epochs.thresholds import decide

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
SPAN = OffsetRange(topic="t", generation=1, partition=0, from_offset=3, to_offset=9)
COLLECTING = decide(ThresholdRule(threshold=50), counted=3, quality=None)
WAITING = decide(ThresholdRule(threshold=50), counted=60, quality=None)


def command(kind: type[Command], **fields: Any) -> Any:  # noqa: ANN401 - of the kind that is asked for
    """Return a command of alice."""
    return kind(
        event_id=UUID(int=1), occurred_at=NOON, issuer="alice", expires_at=NOON, model_type="goal",
        **{"reason": "looked at it", **fields},
    )  # fmt: skip


def dataset(**changed: object) -> ReviewedDataset:
    """Return the open data set of epoch 4."""
    fields: dict[str, object] = {
        "id": UUID(int=2), "epoch": 4, "is_open": True, "data_count": 60, "threshold": 50, "quality_score": 0.4,
        "review": DatasetReview.NONE, "reviewed_by": None, "ranges": None,
    }  # fmt: skip
    return ReviewedDataset(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["", " \n ", "x" * (LONGEST_REASON + 1)])
def test_a_reason_is_asked_for(reason: str) -> None:
    """A review needs a reason of limited length."""
    with pytest.raises(CommandRejectedError, match="say why"):
        checked_reason(reason)
    assert checked_reason("  a sale ") == "a sale"


def test_what_waits_for_its_quality_is_approved() -> None:
    """A data set that waits for its quality can be approved."""
    assert WAITING.decision is ThresholdDecision.WAITING_FOR_QUALITY
    for epoch in (None, 4):
        check_approval(command(ApproveDataset, epoch=epoch), dataset(), WAITING, model_type="goal")


@pytest.mark.parametrize(
    ("epoch", "changed", "evaluation", "sentence"),
    [
        (3, {}, WAITING, "goal collects epoch 4, not 3"),
        (None, {}, COLLECTING, "does not wait for its quality: 3 of 50"),
        (None, {"review": DatasetReview.APPROVED, "reviewed_by": "bob"}, COLLECTING, "approved by bob already"),
    ],
)
def test_an_approval_is_refused_with_how_the_data_set_stands(
    epoch: int | None, changed: dict[str, object], evaluation: Any, sentence: str  # noqa: ANN401 - an evaluation
) -> None:  # fmt: skip
    """An approval in any other case is rejected with the reason."""
    with pytest.raises(CommandRejectedError, match=sentence):
        check_approval(command(ApproveDataset, epoch=epoch), dataset(**changed), evaluation, model_type="goal")


def test_the_ranges_of_a_quarantine_are_those_of_the_data_set_it_names() -> None:
    """A quarantine covers the ranges of the data set that it names."""
    other = msgspec.structs.replace(SPAN, from_offset=0, to_offset=3)
    closed = dataset(epoch=3, is_open=False, ranges=(other,))
    order = command(QuarantineDataset, epoch=None)
    assert quarantined_ranges(order, dataset(), [SPAN], model_type="goal") == (SPAN,)
    assert quarantined_ranges(order, closed, [SPAN], model_type="goal") == (other,)


@pytest.mark.parametrize(
    ("found", "collected", "sentence"),
    [
        (None, [SPAN], "goal has no data set of epoch 9"),
        (dataset(), [], "has collected nothing in epoch 4 yet"),
        (dataset(review=DatasetReview.QUARANTINED, reviewed_by="bob"), [SPAN], "quarantined by bob already"),
    ],
)
def test_a_quarantine_of_nothing_is_refused(
    found: ReviewedDataset | None, collected: list[OffsetRange], sentence: str
) -> None:
    """A quarantine that would change nothing is rejected."""
    with pytest.raises(CommandRejectedError, match=sentence):
        quarantined_ranges(command(QuarantineDataset, epoch=9), found, collected, model_type="goal")


def test_the_answer_says_what_happens_next() -> None:
    """The answer tells whether the next epoch collects or a rollback may be needed."""
    closed = dataset(epoch=3, is_open=False)
    sentences = [
        quarantine_sentence(one, model_type="goal", by="alice", trainings=trainings)
        for one, trainings in ((dataset(), []), (closed, []), (closed, ["run"]))
    ]
    assert "epoch 5 collects behind it" in sentences[0]
    assert "has not begun" in sentences[1]
    assert "`fincoach-learning rollback goal`" in sentences[2]
