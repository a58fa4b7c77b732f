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
    """A runtime that only records its end."""

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
    """A model without a version is refused with a sentence."""
    with pytest.raises(NotLoadedError, match="no version of goal is loaded yet"):
        VersionRegistry().lease(GOAL)


def test_a_version_in_use_is_not_closed_by_a_swap() -> None:
    """A version in use stays open over a swap."""
    registry, old, new = VersionRegistry(), loaded("1.0.0"), loaded("1.1.0")
    registry.swap(GOAL, served(old))
    lease = registry.lease(GOAL)
    registry.swap(GOAL, served(new))
    assert not old.closed
    lease.release()
    assert old.closed


def test_the_previous_version_stays_open_for_a_rollback() -> None:
    """The previous version stays open for a rollback."""
    registry, old, new = VersionRegistry(), loaded("1.0.0"), loaded("1.1.0")
    registry.swap(GOAL, served(old))
    registry.swap(GOAL, served(new, old))
    assert not old.closed
    assert registry.lease(GOAL, "1.0.0") is old
    registry.swap(GOAL, served(old, sequence=3))
    assert new.closed
    assert registry.swaps == 2


def test_a_version_that_is_not_loaded_is_refused_with_the_loaded_ones() -> None:
    """A version that is not loaded is refused with the loaded ones."""
    registry = VersionRegistry()
    registry.swap(GOAL, served(loaded("1.1.0"), loaded("1.0.0")))
    with pytest.raises(RequestError, match=r"version 9.9.9 of goal is not loaded; loaded are 1.1.0, 1.0.0"):
        registry.lease(GOAL, "9.9.9")


def test_taking_the_same_version_again_is_no_swap() -> None:
    """A repeated desired state is no swap and closes nothing."""
    registry, version = VersionRegistry(), loaded("1.0.0")
    registry.swap(GOAL, served(version))
    registry.swap(GOAL, served(version, loaded("0.0.0"), sequence=2))
    assert (registry.swaps, version.closed) == (0, False)


def test_closing_the_registry_closes_everything_that_is_unused() -> None:
    """Closing the registry closes all unused versions and refuses later leases."""
    registry, old, new = VersionRegistry(), loaded("1.0.0"), loaded("1.1.0")
    registry.swap(GOAL, served(new, old))
    lease = registry.lease(GOAL)
    registry.close()
    assert (old.closed, new.closed) == (True, False)
    lease.release()
    assert new.closed


@given(st.lists(st.tuples(st.sampled_from(["lease", "release", "swap", "roll_back"]), st.integers(0, 9))))
def test_whatever_the_order_nothing_in_use_is_closed_and_nothing_closes_twice(steps: list[tuple[str, int]]) -> None:
    """In any order of requests and swaps, nothing in use closes and nothing closes twice."""
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
