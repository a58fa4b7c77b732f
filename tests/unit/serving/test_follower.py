"""Following desired states, and what is reported."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from backends.clock import ManualClock
from schemas.vocabulary import ArtifactKind
from tests.processes import eventually
from tests.replicas import Replica
from tests.versions import desired

GOAL = "goal"


@pytest.fixture
def replica(tmp_path: Path, clock: ManualClock) -> Replica:
    """Give a replica that serves nothing yet."""
    return Replica(tmp_path, clock)


async def test_lower_sequences_and_repeats_are_ignored(replica: Replica) -> None:
    """A late or repeated message changes nothing."""
    follower = replica.followers[GOAL]
    assert follower.desire(desired(5, replica.installation.goal(0.8)))
    assert not follower.desire(desired(5, replica.installation.goal(0.7)))
    assert not follower.desire(desired(4, replica.installation.goal(0.6)))
    assert follower.desired_sequence == 5


async def test_a_swap_keeps_the_previous_version_loaded_and_a_rollback_loads_nothing(replica: Replica) -> None:
    """A rollback finds its version warm, and loads nothing."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    await replica.serve_goal(1, old)
    loaded = replica.registry.models[GOAL].active
    await replica.serve_goal(2, new, old)
    assert replica.registry.models[GOAL].previous is loaded
    for reference in (old, new):
        replica.installation.store.delete(reference.artifact_uri)
    await replica.serve_goal(3, old)
    assert replica.registry.models[GOAL].active is loaded
    assert replica.registry.swaps == 2


async def test_a_late_replica_warms_the_previous_version_after_the_active_one(replica: Replica) -> None:
    """A late replica loads the active version first and then the previous one."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    await replica.serve_goal(2, new, old)
    served = replica.registry.models[GOAL]
    assert served.previous is not None
    assert (served.active.reference, served.previous.reference) == (new, old)


async def test_a_previous_version_that_is_gone_does_not_keep_the_active_one_from_serving(replica: Replica) -> None:
    """A lost previous version does not keep the active one from serving."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    replica.installation.store.delete(old.artifact_uri)
    await replica.serve_goal(2, new, old)
    assert replica.registry.models[GOAL].previous is None


async def test_the_same_version_under_a_new_sequence_keeps_its_since(replica: Replica, clock: ManualClock) -> None:
    """A repeated announcement of a version keeps its "since"."""
    version = replica.installation.goal(0.8)
    await replica.serve_goal(1, version)
    began = replica.registry.models[GOAL].since
    clock.advance(60)
    await replica.serve_goal(2, version)
    served = replica.registry.models[GOAL]
    assert (served.since, served.sequence, replica.registry.swaps) == (began, 2, 0)


async def test_a_version_that_cannot_be_loaded_is_reported_and_tried_again(replica: Replica) -> None:
    """A version that cannot be loaded is reported and tried again, while the old one serves."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    await replica.serve_goal(1, old)
    files = replica.installation.store.get(new.artifact_uri)
    replica.installation.store.delete(new.artifact_uri)
    follower = replica.followers[GOAL]
    task = asyncio.create_task(follower.run())
    follower.desire(desired(2, new, previous=old))

    async def failed() -> bool:
        return replica.reporter.status().models["goal"].error is not None

    await eventually(failed, what="the error in the replica's status")
    status = replica.reporter.status().models["goal"]
    assert (status.version, status.sequence) == ("1.0.0", 1)
    assert "cannot load goal 1.1.0" in (status.error or "")
    replica.installation.store.put("artifacts", files)

    async def healed() -> bool:
        return replica.reporter.status().models["goal"].version == "1.1.0"

    await eventually(healed, what="the version to be loaded after all")
    assert replica.reporter.status().models["goal"].error is None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_newer_desired_state_ends_the_wait_for_one_that_cannot_be_loaded(replica: Replica) -> None:
    """A newer desired state ends the wait for one that cannot be loaded."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    await replica.serve_goal(1, old)
    replica.installation.store.delete(new.artifact_uri)
    follower = replica.followers[GOAL]
    follower.desire(desired(2, new))
    task = asyncio.create_task(follower.run())
    await eventually(lambda: _has_error(replica), what="the first failure")
    follower.desire(desired(3, old))

    async def settled() -> bool:
        return replica.registry.models[GOAL].sequence == 3

    await eventually(settled, what="the newer state", seconds=2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _has_error(replica: Replica) -> bool:
    return replica.reporter.status().models["goal"].error is not None


async def test_a_replica_resumes_from_its_own_disk(replica: Replica, tmp_path: Path, clock: ManualClock) -> None:
    """A replica starts from its own last states and artifacts when Kafka is away."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    await replica.serve_goal(1, old)
    await replica.serve_goal(2, new, old)
    for reference in (old, new):
        replica.installation.store.delete(reference.artifact_uri)
    restarted = Replica(tmp_path, clock)
    (state,) = restarted.library.remembered()
    await restarted.apply(state)
    served = restarted.registry.models[GOAL]
    assert (served.active.reference.version, served.sequence) == ("1.1.0", 2)
    assert served.previous is not None


async def test_the_status_says_what_is_served(replica: Replica, clock: ManualClock) -> None:
    """The status names what is served."""
    old, new = replica.installation.goal(0.5), replica.installation.goal(0.8, version="1.1.0")
    await replica.serve_goal(1, old)
    await replica.serve_goal(2, new, old)
    status = replica.reporter.status()
    goal = status.models["goal"]
    assert (status.replica_id, status.swaps, goal.since) == ("replica-1", 1, clock.now())
    assert (goal.version, goal.previous_version, goal.sequence, goal.kind) == (
        "1.1.0",
        "1.0.0",
        2,
        ArtifactKind.LEARNED,
    )
