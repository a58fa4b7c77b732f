"""The registry of loaded versions."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages.deployment import VersionReference
from schemas.vocabulary import ArtifactKind
from serving.errors import NotLoadedError, RequestError
from serving.registry import LoadedVersion, ServedVersions, VersionRegistry

GOAL = "goal"
NOW = dt.datetime(2026, 3, 4, tzinfo=dt.UTC)


class StubRuntime:
    """A runtime of which only the end matters."""

    def __init__(self) -> None:
        self.closes = 0

    def close(self) -> None:
        """Count."""
        self.closes += 1


def loaded(version: str) -> LoadedVersion:
    """Return a loaded version."""
    reference = VersionReference(
        version=version, kind=ArtifactKind.LEARNED, artifact_uri=f"artifacts/{version}", artifact_digest=version
    )
    runtime: Any = StubRuntime()
    return LoadedVersion(reference, runtime)


def served(active: LoadedVersion, previous: LoadedVersion | None = None, *, sequence: int = 1) -> ServedVersions:
    """Return what is served."""
    return ServedVersions(active=active, previous=previous, sequence=sequence, since=NOW)


def test_a_model_without_a_version_is_refused_with_a_sentence() -> None:
    """A cold replica must say that it is cold."""
    with pytest.raises(NotLoadedError, match="no version of goal is loaded yet"):
        VersionRegistry().lease(GOAL)


def test_a_version_in_use_is_not_closed_by_a_swap() -> None:
    """Closing what a request still uses loses that request: the promise that no prediction fails."""
    registry, old, new = VersionRegistry(), loaded("1.0.0"), loaded("1.1.0")
    registry.swap(GOAL, served(old))
    lease = registry.lease(GOAL)
    registry.swap(GOAL, served(new))
    assert not old.closed
    lease.release()
    assert old.closed


def test_the_previous_version_stays_open_for_a_rollback() -> None:
    """A rollback that has to load first takes longer than its second."""
    registry, old, new = VersionRegistry(), loaded("1.0.0"), loaded("1.1.0")
    registry.swap(GOAL, served(old))
    registry.swap(GOAL, served(new, old))
    assert not old.closed
    assert registry.lease(GOAL, "1.0.0") is old
    registry.swap(GOAL, served(old, sequence=3))
    assert new.closed
    assert registry.swaps == 2


def test_a_version_that_is_not_loaded_is_refused_with_the_loaded_ones() -> None:
    """A caller who names a version must learn which ones there are."""
    registry = VersionRegistry()
    registry.swap(GOAL, served(loaded("1.1.0"), loaded("1.0.0")))
    with pytest.raises(RequestError, match=r"version 9.9.9 of goal is not loaded; loaded are 1.1.0, 1.0.0"):
        registry.lease(GOAL, "9.9.9")


def test_taking_the_same_version_again_is_no_swap() -> None:
    """A repeated desired state must neither be counted as a swap nor close what serves."""
    registry, version = VersionRegistry(), loaded("1.0.0")
    registry.swap(GOAL, served(version))
    registry.swap(GOAL, served(version, loaded("0.0.0"), sequence=2))
    assert (registry.swaps, version.closed) == (0, False)


def test_closing_the_registry_closes_everything_that_is_unused() -> None:
    """A stopping replica gives the memory of all versions back, and refuses what comes later."""
    registry, old, new = VersionRegistry(), loaded("1.0.0"), loaded("1.1.0")
    registry.swap(GOAL, served(new, old))
    lease = registry.lease(GOAL)
    registry.close()
    assert (old.closed, new.closed) == (True, False)
    lease.release()
    assert new.closed


@given(st.lists(st.tuples(st.sampled_from(["lease", "release", "swap", "roll_back"]), st.integers(0, 9))))
def test_whatever_the_order_nothing_in_use_is_closed_and_nothing_closes_twice(steps: list[tuple[str, int]]) -> None:
    """Some order of requests, swaps and roll-backs that closes a leased version would lose a request one day."""
    registry, everything, leases = VersionRegistry(), [loaded("0")], []
    registry.swap(GOAL, served(everything[0]))
    for number, (step, choice) in enumerate(steps, start=1):
        current = registry.models[GOAL]
        if step == "lease":
            leases.append(registry.lease(GOAL))
            assert leases[-1] is current.active
        elif step == "release" and leases:
            leases.pop(choice % len(leases)).release()
        elif step == "swap":
            everything.append(loaded(str(number)))
            registry.swap(GOAL, served(everything[-1], current.active, sequence=number))
        elif step == "roll_back" and current.previous is not None:
            registry.swap(GOAL, served(current.previous, sequence=number))
        needed = {*registry.models[GOAL].versions, *leases}
        for version in everything:
            runtime: Any = version.runtime
            assert version.closed == (version not in needed)
            assert runtime.closes == int(version.closed)
