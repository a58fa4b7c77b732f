"""The plan of faults follows from the seed alone, and never asks for more than the system can heal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults.plan import PlannedFault, planned
from tests.chaos.faults.register import FAULTS
from tests.chaos.oracle.faults import PLANNED_OFTEN
from tests.chaos.oracle.minimums import minimums
from tests.chaos.rig.cluster import rules
from tests.chaos.rig.settings import ChaosSettings

RULES = rules(ChaosSettings(seed=0, seconds=900, folder=Path("/nowhere")), disk=True, clocks=True)


def plan(seed: int, **changes: object) -> tuple[PlannedFault, ...]:
    """Return the plan of a whole run."""
    return planned(seed, **{"seconds": 900.0, "every_seconds": 5.0, "rules": RULES, **changes})  # type: ignore[arg-type]


def test_every_kind_of_the_rules_can_be_carried_out() -> None:
    """Every kind with a rule can be injected, and every kind has a rule."""
    assert RULES.keys() == FAULTS.keys()


@given(st.integers(min_value=0, max_value=2**24))
def test_a_seed_repeats_its_plan(seed: int) -> None:
    """The same seed gives the same plan."""
    assert plan(seed) == plan(seed)
    assert plan(seed) != plan(seed + 1)


@given(st.integers(min_value=0, max_value=2**24))
def test_a_whole_run_has_its_hundred_faults_of_every_kind(seed: int) -> None:
    """A run of 900 seconds has enough faults, of every kind."""
    faults = plan(seed)
    assert len(faults) >= 150  # on a slow machine a third may find no time, or no proof
    kinds = Counter(fault.kind for fault in faults)
    assert all(kinds[kind] >= PLANNED_OFTEN for kind in RULES)
    assert kinds["freeze_in_batch"] >= 2 * minimums(seconds=900, has_all_faults=True)["refused zombies"]
    assert all(fault.at_seconds + fault.seconds < 900 for fault in faults)


@given(st.integers(min_value=0, max_value=2**24))
def test_nobody_is_hit_twice_at_once(seed: int) -> None:
    """No target is hit twice at once."""
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
    """Faults that would exceed what the system can heal never overlap."""
    one, other = (
        PlannedFault(number=1, kind=kind, target=target, at_seconds=0.0, seconds=0.0)
        for kind, target in (first, second)
    )
    assert one.claims & other.claims


def test_only_the_kinds_that_were_asked_for() -> None:
    """``ONLY`` limits the plan to the chosen kinds."""
    assert {fault.kind for fault in plan(3, only=("freeze", "kill"))} == {"freeze", "kill"}


def test_without_a_kind_nothing_is_planned() -> None:
    """A run without rules has an empty plan."""
    assert plan(1, rules={}) == ()
