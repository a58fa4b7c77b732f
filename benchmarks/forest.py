"""The model of the HTTP comparisons: a goal forest as the trainer makes it (100 trees, leaves of at least 20), as ONNX.

Its training data is drawn from a seed. Only its size and shape matter here; they are those of a real model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

from backends.clock import SystemClock
from backends.store.content import ContentStore
from modelkit.features import REDUCER_VERSION
from modelkit.installation_key import installation_key
from modelkit.manifest import GOLDEN, MODEL, Manifest, build_artifact, golden_file
from modelkit.registry import definition_of
from models.goal.features import GOAL_FEATURES
from schemas.messages.deployment import VersionReference
from schemas.vocabulary import ArtifactKind

if TYPE_CHECKING:
    import numpy.typing as npt

TREES = 100
ROWS = 8_000
GOLDEN_ROWS = 16
WIDTH = len(GOAL_FEATURES)


def goal_rows(count: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Return ``count`` rows of goal features, shape (count, d)."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def forest_onnx(seed: int) -> bytes:
    """Return a fitted forest with the outputs ``label``, of shape (n,), and ``probabilities``, of shape (n, 2)."""
    rows = goal_rows(ROWS, seed=seed)
    noise = np.random.default_rng(seed + 1).normal(size=ROWS)
    met = (rows[:, :5].sum(axis=1) + 1.5 * noise > 0).astype(int)
    forest = RandomForestClassifier(TREES, min_samples_leaf=20, n_jobs=2, random_state=seed).fit(rows, met)
    model = to_onnx(forest, rows[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
    return bytes(model.SerializeToString())


def store_version(folder: Path, onnx: bytes, *, version: str) -> VersionReference:
    """Store a signed goal version in the installation in ``folder`` and return its reference."""
    key = installation_key(folder / "keys")
    manifest = Manifest(
        model_type="goal",
        kind=ArtifactKind.LEARNED,
        feature_names=GOAL_FEATURES,
        reducer_version=REDUCER_VERSION,
        parameters={"output": "probabilities", "output_column": 1},
        created_at=SystemClock().now(),
    )
    rows = goal_rows(GOLDEN_ROWS, seed=0)
    scores = definition_of("goal").runtime.load().scorer(manifest, {MODEL: onnx})(rows)
    files = build_artifact(manifest, {MODEL: onnx, GOLDEN: golden_file(rows.tolist(), scores.tolist())}, key)
    address = ContentStore(f"file://{folder / 'store'}").put("artifacts", files)
    return VersionReference(
        version=version, kind=ArtifactKind.LEARNED, artifact_uri=address, artifact_digest=address.rsplit("/", 1)[-1]
    )
