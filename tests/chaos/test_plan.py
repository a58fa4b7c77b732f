"""The plan of faults follows from the seed alone, and never asks for more than the system can heal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults.plan import PlannedFault, planned
from tests.chaos.faults.register import FAULTS
from tests.chaos.oracle.faults import SURELY_ONCE
from tests.chaos.oracle.minimums import minimums
from tests.chaos.rig.cluster import rules
from tests.chaos.rig.settings import ChaosSettings

RULES = rules(ChaosSettings(seed=0, seconds=900, folder=Path("/nowhere")), disk=True, clocks=True)


def plan(seed: int, **changes: object) -> tuple[PlannedFault, ...]:
    """Return the plan of a whole run."""
    return planned(seed, **{"seconds": 900.0, "every_seconds": 5.0, "rules": RULES, **changes})  # type: ignore[arg-type]


def test_every_kind_of_the_rules_can_be_carried_out() -> None:
    """A kind would be planned that nobody knows how to inject, or be known and never planned."""
    assert RULES.keys() == FAULTS.keys()


@given(st.integers(min_value=0, max_value=2**24))
def test_a_seed_repeats_its_plan(seed: int) -> None:
    """A failing run could not be repeated."""
    assert plan(seed) == plan(seed)
    assert plan(seed) != plan(seed + 1)


@given(st.integers(min_value=0, max_value=2**24))
def test_a_whole_run_has_its_hundred_faults_of_every_kind(seed: int) -> None:
    """A run of 900 seconds would show too little, or never try one of the kinds."""
    faults = plan(seed)
    assert len(faults) >= 150  # on a slow machine a third may find no time, or no proof
    kinds = Counter(fault.kind for fault in faults)
    assert all(kinds[kind] >= SURELY_ONCE for kind in RULES)
    assert kinds["freeze_in_batch"] >= 2 * minimums(seconds=900, has_all_faults=True)["refused zombies"]
    assert all(fault.at_seconds + fault.seconds < 900 for fault in faults)


@given(st.integers(min_value=0, max_value=2**24))
def test_nobody_is_hit_twice_at_once(seed: int) -> None:
    """Two brokers of three would be away at once, or both workers stalled: that is an outage, not a fault to survive."""
    faults = plan(seed)
    for place, fault in enumerate(faults):
        for later in faults[place + 1 :]:
            if later.at_seconds < fault.at_seconds + fault.seconds:
                assert not fault.claims & later.claims, f"{fault} and {later}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("broker_kill", "broker-1"), ("broker_freeze", "broker-2")),
        (("broker_kill", "broker-1"), ("postmaster_kill", "postgres")),
        (("freeze", "streams-1"), ("freeze", "streams-2")),
        (("freeze_in_batch", "streams-1"), ("freeze", "streams-2")),
        (("freeze", "streams-2"), ("silent_connection", "streams-1>postgres")),
        (("disk_full", "broker-3"), ("broker_kill", "broker-1")),
    ],
)
def test_what_must_not_come_together(first: tuple[str, str], second: tuple[str, str]) -> None:
    """The pairs named here would take the system below what it needs."""
    one, other = (
        PlannedFault(number=1, kind=kind, target=target, at_seconds=0.0, seconds=0.0)
        for kind, target in (first, second)
    )
    assert one.claims & other.claims


def test_only_the_kinds_that_were_asked_for() -> None:
    """`ONLY=freeze` would inject something else, or nothing."""
    assert {fault.kind for fault in plan(3, only=("freeze", "kill"))} == {"freeze", "kill"}


def test_without_a_kind_nothing_is_planned() -> None:
    """A run without rules would never end."""
    assert plan(1, rules={}) == ()
