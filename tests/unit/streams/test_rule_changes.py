"""Threshold rules that an administrator may set."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CommandRejectedError
from schemas.messages.control import UpdateThresholds
from schemas.thresholds import ThresholdRule
from streams.epochs.rule_changes import LARGEST_THRESHOLD, checked_changes, listed
from tests.unit.streams.worlds import NOON

RULE = ThresholdRule(threshold=50, adaptive=True, least=25, most=1_000, cool_down_seconds=300, max_age_seconds=86_400)


def command(**fields: object) -> UpdateThresholds:
    """Return a command."""
    return UpdateThresholds(
        event_id=uuid.uuid4(), occurred_at=NOON, issuer="tester", expires_at=NOON + dt.timedelta(hours=1), model_type="goal",
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def test_only_what_is_given_changes() -> None:
    """Only the given parts change."""
    assert checked_changes(command(quality_gate=0.5), RULE) == {"quality_gate": 0.5}
    assert checked_changes(command(threshold=60, cool_down_seconds=0), RULE) == {
        "threshold": 60,
        "cool_down_seconds": 0,
    }
    assert checked_changes(command(adaptive=False), RULE) == {"adaptive": False}


def test_nothing_unsets_what_has_a_default() -> None:
    """0, or an empty list, restores the default."""
    changes = checked_changes(command(least=0, most=0, max_age_seconds=0, reference_cost_seconds=0), RULE)
    assert set(changes.values()) == {None}
    assert checked_changes(command(blackouts=()), RULE) == {"blackouts": []}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "nothing to change"),
        ({"threshold": 0}, "give a number from 1"),
        ({"threshold": -1}, "give a number from 1"),
        ({"threshold": LARGEST_THRESHOLD + 1}, "to 1000000000"),
        ({"quality_gate": -0.1}, "from 0 to 1"),
        ({"quality_gate": 1.01}, "from 0 to 1"),
        ({"quality_gate": float("nan")}, "no ratio"),
        ({"cool_down_seconds": -1}, "cool-down"),
        ({"cool_down_seconds": 10**9}, "cool-down"),
        ({"least": 51}, "lies above the threshold of 50; change both"),
        ({"most": 49}, "lies below the threshold of 50; change both"),
        ({"threshold": 2_000}, "'most' of 1000 lies below"),
        ({"least": -3}, "or 0 for none of one's own"),
        ({"max_age_seconds": 200}, "within the cool-down of 300 s"),
        ({"max_age_seconds": 5}, "give a number from 60"),
        ({"cool_down_seconds": 86_400}, "within the cool-down"),
        ({"user_share": 0.0}, "or nobody"),
        ({"user_share": 0.51}, "one user decide"),
        ({"even_share": 0.5}, "even share"),
        ({"reference_cost_seconds": float("inf")}, "reference"),
        ({"blackouts": ("Mon 8-12",)}, "'Mon 08:00-12:00'"),
        ({"blackouts": ("Mon-Sun 00:00-24:00",)}, "no minute"),
        ({"blackouts": ("Mon 08:00-12:00",) * 51}, "at most 50"),
    ],
)
def test_impossible_rules_are_refused(fields: dict[str, object], sentence: str) -> None:
    """Rules out of range or contradictory are rejected with what is valid."""
    with pytest.raises(CommandRejectedError, match=sentence):
        checked_changes(command(**fields), RULE)


@given(st.integers(25, 1_000), st.floats(0, 1), st.integers(0, 80_000))
def test_possible_rules_are_taken(threshold: int, gate: float, cool_down: int) -> None:
    """Valid rules are accepted."""
    wanted = command(threshold=threshold, quality_gate=gate, cool_down_seconds=cool_down)
    assert len(checked_changes(wanted, RULE)) == 3


def test_changes_are_listed_for_people() -> None:
    """The answer lists each change as text for people."""
    changes = checked_changes(
        command(threshold=60, adaptive=False, least=0, user_share=0.05, blackouts=("Mon 08:00-12:00", "Sun 00:00-06:00")), RULE
    )  # fmt: skip
    assert set(listed(changes).split(", ")) == {
        "threshold 60", "adaptive off", "least not set", "user_share 0.05", "blackouts Mon 08:00-12:00; Sun 00:00-06:00",
    }  # fmt: skip
