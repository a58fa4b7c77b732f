"""From a verified candidate to the row of its version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backends.database.repositories.deployment import NewVersion, VersionRow
from deployer.verification import TrialReport
from deployer.versions import Change, Traits, change_between, next_version
from modelkit.manifest import Manifest
from schemas.messages.training import ModelReady
from schemas.vocabulary import ArtifactKind, SemanticVersion

# The parameter by which a trainer marks a candidate that grew from the champion's own weights.
FINE_TUNED = "fine_tuned"


def numbered(ready: ModelReady, report: TrialReport, known: Sequence[VersionRow]) -> NewVersion:
    """Return the version that the candidate becomes after all ``known`` ones.

    Raises:
        ValueError: the report has no manifest.
    """
    if report.manifest is None:
        raise ValueError("a candidate without a manifest has no version")
    traits = traits_of(report.manifest)
    comparison = ready.comparison
    return NewVersion(
        model_type=ready.model_type, version=str(_next(traits, known)), kind=ArtifactKind.LEARNED, address=ready.artifact_uri,
        artifact_digest=ready.artifact_digest, parent_digest=ready.parent_digest, training_event_id=ready.training_event_id,
        performance=comparison.candidate, baseline_performance=comparison.baseline,
        metadata={
            **with_traits(traits), "comparison": msgspec.to_builtins(comparison), "epochs": list(ready.epochs), "samples": ready.samples,
            "snapshot_digest": ready.snapshot_digest, "training_event_id": str(ready.training_event_id), "trial": report.facts,
        },
    )  # fmt: skip


def traits_of(manifest: Manifest) -> Traits:
    """Return what decides a version's number."""
    return Traits(
        feature_names=manifest.feature_names, reducer_version=manifest.reducer_version, action_set=manifest.action_set,
        family=str(manifest.parameters.get("family", "")), fine_tuned=bool(manifest.parameters.get(FINE_TUNED, False)),
    )  # fmt: skip


def with_traits(traits: Traits) -> dict[str, Any]:
    """Return the part of a version's metadata that later versions are compared with."""
    return {"traits": msgspec.to_builtins(traits)}


def _next(traits: Traits, known: Sequence[VersionRow]) -> SemanticVersion:
    rows = {SemanticVersion.parse(row.version): row for row in known}
    newest = rows[max(rows)] if rows else None
    before = newest.metadata.get("traits") if newest is not None else None
    change = Change.MAJOR if before is None else change_between(msgspec.convert(before, Traits), traits)
    return next_version(rows, change)
