"""Real signed artifacts for tests, and where they lie: keys and a store in a folder of the test's own."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import numpy as np

from backends.store.content import ContentStore
from modelkit.installation_key import installation_key
from modelkit.manifest import GOLDEN, PARAMETERS, Golden, build_artifact, golden_file, open_artifact
from modelkit.registry import definition_of
from modelkit.signing import SigningKey
from modelkit.version_zero import baseline_artifact
from models.goal.runtime import GoalBaseline
from schemas.messages.deployment import DeploymentState, VersionReference
from schemas.messages.training import MetricComparison, ModelReady
from schemas.vocabulary import ArtifactKind, DeploymentPhase, ModelType

BUILT_AT = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Installation:
    """An installation's keys and artifact store in one folder."""

    folder: Path

    @property
    def keys_folder(self) -> Path:
        """Return where the keys are."""
        return self.folder / "keys"

    @property
    def store_url(self) -> str:
        """Return the store's address."""
        return f"file://{self.folder / 'store'}"

    @property
    def store(self) -> ContentStore:
        """Return the store."""
        return ContentStore(self.store_url)

    @property
    def key(self) -> SigningKey:
        """Return the installation's signing key."""
        return installation_key(self.keys_folder)

    def baseline(self, model_type: ModelType) -> VersionReference:
        """Store version 0 of a model and return its reference."""
        files = baseline_artifact(definition_of(model_type), self.key, BUILT_AT)
        return reference_of(self.store.put("artifacts", files), version="0.0.0", kind=ArtifactKind.BASELINE)

    def goal(self, rate: float, *, version: str = "1.0.0") -> VersionReference:
        """Store a goal model that answers ``rate`` and return its reference."""
        return reference_of(self.store.put("artifacts", goal_artifact(self.key, rate)), version=version)


def goal_artifact(key: SigningKey, rate: float, **manifest_fields: object) -> dict[str, bytes]:
    """Return a signed goal model that always answers the probability ``rate``."""
    loaded = open_artifact(baseline_artifact(definition_of("goal"), key, BUILT_AT), key.trusted())
    files = {**loaded.files, PARAMETERS: msgspec.json.encode(GoalBaseline(base_rate=rate))}
    manifest = msgspec.structs.replace(loaded.manifest, kind=ArtifactKind.LEARNED, files={}, **manifest_fields)
    rows = np.asarray(msgspec.json.decode(files[GOLDEN], type=Golden).inputs, dtype=np.float32)
    outputs = definition_of("goal").runtime.load().scorer(manifest, files)(rows)
    return build_artifact(manifest, {**files, GOLDEN: golden_file(rows.tolist(), outputs.tolist())}, key)


def reference_of(address: str, *, version: str, kind: ArtifactKind = ArtifactKind.LEARNED) -> VersionReference:
    """Return the reference of what is stored at ``address``."""
    return VersionReference(
        version=version, kind=kind, artifact_uri=address, artifact_digest=address.rsplit("/", 1)[-1]
    )


def desired(
    sequence: int,
    active: VersionReference,
    *,
    previous: VersionReference | None = None,
    model_type: ModelType = "goal",
) -> DeploymentState:
    """Return a desired state."""
    phase = DeploymentPhase.BASELINE if active.kind == ArtifactKind.BASELINE else DeploymentPhase.STABLE
    return DeploymentState(
        event_id=uuid4(), occurred_at=BUILT_AT, model_type=model_type, sequence=sequence, phase=phase, active=active, previous=previous
    )  # fmt: skip


def ready(
    reference: VersionReference,
    *,
    parent_digest: str | None = None,
    candidate: float = 0.8,
    training_event_id: UUID | None = None,
) -> ModelReady:
    """Return the announcement of a goal candidate that beats a baseline of .5."""
    return ModelReady(
        event_id=uuid4(), occurred_at=BUILT_AT, training_event_id=training_event_id or uuid4(), model_type="goal", epochs=(1,),
        artifact_uri=reference.artifact_uri, artifact_digest=reference.artifact_digest, snapshot_digest="0" * 64,
        parent_digest=parent_digest, samples=100,
        comparison=MetricComparison(
            metric="auc", higher_is_better=True, candidate=candidate, baseline=0.5, baseline_name="base rate"
        ),
    )  # fmt: skip
