"""The factors of a decision and what they mean."""

from __future__ import annotations

import datetime as dt
from uuid import UUID

import msgspec
import pytest
import typer

from admin.cli.thresholds import seconds
from admin.status.explaining import MEANINGS, explained, shown
from schemas.evaluations import EvaluationRecord, RuleFactors, StoredEvaluation, read_evaluation
from schemas.rows import ReviewedDataset
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import DatasetReview
from streams.epochs.reviews import quarantine_evaluation
from streams.epochs.thresholds import Circumstances, decide

BY_RULE = decide(
    ThresholdRule(threshold=500, blackouts=("Mon 08:00-12:00",)),
    Circumstances(moment=dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC), psi=0.5),
    counted=10,
    quality=None,
)
BY_PERSON = quarantine_evaluation(
    ReviewedDataset(
        id=UUID(int=1),
        epoch=1,
        is_open=True,
        data_count=5,
        threshold=50,
        quality_score=0.5,
        review=DatasetReview.NONE,
        reviewed_by=None,
        ranges=None,
    ),
    by="ann",
    reason="a bot",
)


def stored(evaluation: EvaluationRecord) -> StoredEvaluation:
    """Return an evaluation as it is read back from the database."""
    return read_evaluation(msgspec.json.decode(msgspec.json.encode(evaluation)))


def test_every_factor_of_a_decision_has_its_meaning() -> None:
    """Every factor of a decision has a meaning."""
    found = explained(stored(decide(ThresholdRule(threshold=500), counted=10, quality=None)))
    assert {factor.factor for factor in found} == set(RuleFactors.__struct_fields__)
    assert [factor.factor for factor in found] == list(MEANINGS)
    assert all(factor.meaning for factor in found)


@pytest.mark.parametrize("decision", [BY_RULE, BY_PERSON])
def test_what_is_shown_of_a_factor_is_what_was_stored(decision: EvaluationRecord) -> None:
    """Exactly the stored factors of a decision are shown, each with the value that decided."""
    facts = msgspec.to_builtins(decision.factors)
    assert {factor.factor: factor.value for factor in explained(stored(decision))} == facts


def test_a_factor_of_a_later_version_is_shown_all_the_same() -> None:
    """A factor that only a later version knows is still shown."""
    document = msgspec.to_builtins(BY_PERSON)
    document["factors"]["moon"] = 1
    found = explained(read_evaluation(document))
    assert [(factor.factor, factor.value, factor.meaning) for factor in found][-1] == ("moon", 1, "")


def test_a_decision_of_an_earlier_version_is_explained_all_the_same() -> None:
    """An evaluation that lacks a newer factor is shown with those that it has."""
    document = msgspec.to_builtins(BY_RULE)
    del document["factors"]["even_share"]
    names = [factor.factor for factor in explained(read_evaluation(document))]
    assert names == [name for name in MEANINGS if name != "even_share"]


def test_figures_are_shown_as_people_read_them() -> None:
    """Figures have three decimals, and an unknown figure is not shown as zero."""
    assert [shown(value) for value in (None, 1.0, 0.123456, 7, True)] == ["not known", "1", "0.123", 7, True]
    assert shown({"validity": 0.98765, "diversity": None}) == {"validity": "0.988", "diversity": "not applicable"}


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30D", 2_592_000), ("0", 0), (None, None)]
)  # fmt: skip
def test_times_are_written_as_people_write_them(text: str | None, expected: int | None) -> None:
    """Durations can be written with their unit."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "3w", "-5", "1.5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A text that is not a duration is refused."""
    with pytest.raises(typer.BadParameter, match="30d"):
        seconds(text)
