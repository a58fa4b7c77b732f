"""Which rules an administrator may set."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CommandRejectedError
from schemas.messages.control import UpdateThresholds
from streams.service import LARGEST_THRESHOLD, checked_changes
from tests.unit.streams.worlds import NOON


def command(**fields: float | None) -> UpdateThresholds:
    """Return a command."""
    return UpdateThresholds(
        event_id=uuid.uuid4(), occurred_at=NOON, issuer="tester", expires_at=NOON + dt.timedelta(hours=1), model_type="goal",
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def test_only_what_is_given_changes() -> None:
    """A new gate would reset the threshold."""
    assert checked_changes(command(quality_gate=0.5)) == {"quality_gate": 0.5}
    assert checked_changes(command(threshold=1, cool_down_seconds=0)) == {"threshold": 1, "cool_down_seconds": 0}


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"threshold": 0}, {"threshold": -1}, {"threshold": LARGEST_THRESHOLD + 1}, {"quality_gate": -0.1},
        {"quality_gate": 1.01}, {"quality_gate": float("nan")}, {"cool_down_seconds": -1}, {"cool_down_seconds": 10**9},
    ],
)  # fmt: skip
def test_impossible_rules_are_refused(fields: dict[str, float]) -> None:
    """The database would refuse them later, and the command would be tried for ever."""
    with pytest.raises(CommandRejectedError):
        checked_changes(command(**fields))


@given(st.integers(1, LARGEST_THRESHOLD), st.floats(0, 1), st.integers(0, 86_400))
def test_possible_rules_are_taken(threshold: int, gate: float, cool_down: int) -> None:
    """A sensible rule would be refused."""
    assert len(checked_changes(command(threshold=threshold, quality_gate=gate, cool_down_seconds=cool_down))) == 3
