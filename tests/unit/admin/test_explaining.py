"""The factors of a decision and what they mean."""

from __future__ import annotations

import pytest
import typer

from admin.cli.thresholds import seconds
from admin.status.explaining import MEANINGS, explained, shown
from schemas.thresholds import ThresholdRule
from streams.epochs.thresholds import decide


def test_every_factor_of_a_decision_has_its_meaning() -> None:
    """A person would read a figure and not know what it says."""
    factors = decide(ThresholdRule(threshold=500), counted=10, quality=None).factors
    assert set(factors) == set(MEANINGS)
    assert [factor.factor for factor in explained(factors)] == list(MEANINGS)
    assert all(factor.meaning for factor in explained(factors))


def test_a_factor_of_a_later_version_is_shown_all_the_same() -> None:
    """After a rollback of the command line a figure that decided would be hidden."""
    assert [factor.factor for factor in explained({"moon": 1, "counted": 2})] == ["counted", "moon"]


def test_figures_are_shown_as_people_read_them() -> None:
    """What is not known would pass for nought, or a ratio would fill the line."""
    assert [shown(value) for value in (None, 1.0, 0.123456, 7, True)] == ["not known", "1", "0.123", 7, True]
    assert shown({"validity": 0.98765, "diversity": None}) == {"validity": "0.988", "diversity": "not applicable"}


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30D", 2_592_000), ("0", 0), (None, None)]
)  # fmt: skip
def test_times_are_written_as_people_write_them(text: str | None, expected: int | None) -> None:
    """An age of thirty days would become one of thirty seconds."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "3w", "-5", "1.5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A mistyped age would be taken for another one."""
    with pytest.raises(typer.BadParameter, match="30d"):
        seconds(text)
