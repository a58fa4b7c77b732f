"""Which number a new version gets, and which version comes before one. Pure.

major: another meaning: feature names, action set or reducer version changed, so versions can no longer be compared
row by row. minor: a full retraining, or another family of model. patch: the version before it, fitted on. The first
learned version is 1.0.0; 0.0.0 is the baseline.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from schemas.vocabulary import SemanticVersion

BASELINE_VERSION = SemanticVersion(0, 0, 0)
FIRST_LEARNED = SemanticVersion(1, 0, 0)


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the number: the meaning of a version, its family, and whether it grew from its parent."""

    feature_names: tuple[str, ...]
    reducer_version: int
    action_set: str | None = None
    family: str = ""
    fine_tuned: bool = False


class Change(enum.Enum):
    """How much a version differs from the newest one before it."""

    MAJOR = "major"
    MINOR = "minor"
    PATCH = "patch"


def change_between(before: Traits, after: Traits) -> Change:
    """Return how much ``after`` changes ``before``."""
    if _meaning(before) != _meaning(after):
        return Change.MAJOR
    return Change.PATCH if after.fine_tuned and before.family == after.family else Change.MINOR


def next_version(known: Iterable[SemanticVersion], change: Change) -> SemanticVersion:
    """Return the number after the highest of ``known``; 1.0.0 when none of them was learned."""
    highest = max(known, default=BASELINE_VERSION)
    if highest < FIRST_LEARNED:
        return FIRST_LEARNED
    if change is Change.MAJOR:
        return SemanticVersion(highest.major + 1, 0, 0)
    if change is Change.MINOR:
        return SemanticVersion(highest.major, highest.minor + 1, 0)
    return SemanticVersion(highest.major, highest.minor, highest.patch + 1)


def version_before(version: SemanticVersion, known: Iterable[SemanticVersion]) -> SemanticVersion | None:
    """Return the highest of ``known`` below ``version``, or None when there is nothing before it."""
    return max((other for other in known if other < version), default=None)


def _meaning(traits: Traits) -> tuple[tuple[str, ...], int, str | None]:
    return traits.feature_names, traits.reducer_version, traits.action_set
