"""Version 0 of a model: its trivial baseline as a signed artifact, so that every model answers before the first promotion.

The same creation time and key give the same bytes.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelkit.features import REDUCER_VERSION
from modelkit.interface import FloatArray
from modelkit.manifest import GOLDEN, Manifest, build_artifact, golden_file
from schemas.vocabulary import ArtifactKind

if TYPE_CHECKING:
    from modelkit.definition import ModelDefinition
    from modelkit.signing import SigningKey

GOLDEN_ROWS = 8


def baseline_artifact(
    definition: ModelDefinition, signing_key: SigningKey, created_at: dt.datetime
) -> dict[str, bytes]:
    """Return version 0 of a model, signed, manifest included."""
    runtime, baseline = definition.runtime.load(), definition.baseline.load()
    manifest = Manifest(
        model_type=definition.model_type,
        kind=ArtifactKind.BASELINE,
        feature_names=runtime.feature_names,
        reducer_version=REDUCER_VERSION,
        created_at=created_at,
        **baseline.manifest,
    )
    files = {name: msgspec.json.encode(content) for name, content in baseline.files.items()}
    rows = golden_rows(len(manifest.feature_names))
    outputs = runtime.scorer(manifest, files)(rows)
    return build_artifact(manifest, {**files, GOLDEN: golden_file(rows.tolist(), outputs.tolist())}, signing_key)


def golden_rows(width: int) -> FloatArray:
    """Return rows (8, width) that reach low, middle and high values of every column without drawing anything."""
    grid = np.arange(GOLDEN_ROWS * width, dtype=np.float32).reshape(GOLDEN_ROWS, width)
    return np.asarray((grid * 37.0) % 101.0, dtype=np.float32)
