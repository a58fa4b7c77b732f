"""Version numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.versions import BASELINE_VERSION, Change, Traits, change_between, next_version, version_before
from schemas.vocabulary import SemanticVersion

NUMBERS = st.integers(0, 30)
VERSIONS = st.builds(SemanticVersion, NUMBERS, NUMBERS, NUMBERS)
PLAIN = Traits(feature_names=("a", "b"), reducer_version=1, action_set="fincoach-5", family="forest")


@given(st.lists(VERSIONS), st.sampled_from(Change))
def test_the_next_version_is_higher_than_all_known_ones(known: list[SemanticVersion], change: Change) -> None:
    """The next version is higher than all known ones."""
    following = next_version(known, change)
    assert all(following > version for version in known)
    assert following >= SemanticVersion(1, 0, 0)


@pytest.mark.parametrize("change", Change)
def test_the_first_learned_version_is_1_0_0(change: Change) -> None:
    """The first learned version is 1.0.0, whatever changed since the baseline."""
    assert str(next_version([BASELINE_VERSION], change)) == "1.0.0"


@pytest.mark.parametrize(
    ("change", "expected"), [(Change.MAJOR, "3.0.0"), (Change.MINOR, "2.2.0"), (Change.PATCH, "2.1.4")]
)
def test_each_change_raises_its_own_place(change: Change, expected: str) -> None:
    """Each kind of change raises its own part of the number."""
    assert str(next_version([SemanticVersion(1, 9, 9), SemanticVersion(2, 1, 3)], change)) == expected


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (Traits(feature_names=("a",), reducer_version=1, action_set="fincoach-5", family="forest"), Change.MAJOR),
        (Traits(feature_names=("a", "b"), reducer_version=2, action_set="fincoach-5", family="forest"), Change.MAJOR),
        (Traits(feature_names=("a", "b"), reducer_version=1, action_set="other", family="forest"), Change.MAJOR),
        (Traits(feature_names=("a", "b"), reducer_version=1, action_set="fincoach-5", family="trees"), Change.MINOR),
        (PLAIN, Change.MINOR),
        (Traits(feature_names=("a", "b"), reducer_version=1, action_set="fincoach-5", family="forest", fine_tuned=True), Change.PATCH),
        (Traits(feature_names=("a", "b"), reducer_version=1, action_set="fincoach-5", family="trees", fine_tuned=True), Change.MINOR),
    ],
)  # fmt: skip
def test_what_changed_decides_about_the_place(after: Traits, change: Change) -> None:
    """What changed decides which part of the number rises."""
    assert change_between(PLAIN, after) is change


@given(VERSIONS, st.lists(VERSIONS))
def test_the_version_before_is_the_highest_lower_one(version: SemanticVersion, known: list[SemanticVersion]) -> None:
    """The version before is the highest lower one."""
    before = version_before(version, known)
    lower = [other for other in known if other < version]
    assert before == (max(lower) if lower else None)
