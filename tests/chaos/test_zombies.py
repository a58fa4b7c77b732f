"""A worker that wakes with a batch in hand must have been refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.oracle.faults import faults_hit
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.oracle.world import World


def judged(*evidence: dict[str, Any], **run: Any) -> Verdict:  # noqa: ANN401 - any value of run.json
    """Return the verdict on a run in which a worker was frozen for each ``evidence``."""
    timeline = [
        {"phase": "end", "kind": "freeze_in_batch", "target": "streams-1", "evidence": {"pid": 1, **one}}
        for one in evidence
    ]
    return faults_hit(World(run={"minimums": {"faults": 1, "refused zombies": 0}, **run}, timeline=timeline))


@pytest.mark.parametrize(("refused_by", "holds"), [("ledger", True), ("database", True), ("", False), (None, False)])
def test_every_zombie_with_a_batch_must_be_refused(refused_by: str | None, *, holds: bool) -> None:
    """Every woken worker with a batch in hand must have been refused."""
    good = {"batch": [0, 7], "refused_by": "ledger"}
    verdict = judged(good, {"batch": [1, 9], "refused_by": refused_by}, zombies_refused=5)
    assert verdict.holds is holds, verdict
    assert holds or "woke with the batch [1, 9] in hand" in verdict.detail


def test_a_storm_shows_several_refused_zombies() -> None:
    """A whole run must show several refused zombies."""
    one = {"batch": [0, 7], "refused_by": "database"}
    assert not judged(one, zombies_refused=3, minimums={"faults": 1, "refused zombies": 4}).holds
    assert judged(one, zombies_refused=4, minimums={"faults": 1, "refused zombies": 4}).holds


@pytest.mark.parametrize(("planned", "holds"), [(3, True), (4, False)])
def test_a_kind_that_was_planned_often_and_never_proven_is_missed(planned: int, *, holds: bool) -> None:
    """A kind of fault that was planned often must have been proven."""
    verdict = judged({}, zombies_refused=0, planned={"freeze_in_batch": 1, "disk_full": planned})
    assert verdict.holds is holds, verdict
