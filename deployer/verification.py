"""The trial load of a candidate, in a process of its own: a flipped bit in a model file was seen to kill the process that loads it.

``python -m deployer.verification`` reads a :class:`TrialOrder` from standard input and writes a :class:`TrialReport`.
Digest, signature, load, golden predictions, finiteness, time of one prediction.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backends.store.content import ContentStore
from modelkit.interface import FloatArray, Runtime
from modelkit.manifest import GOLDEN, Golden, LoadedArtifact, Manifest, open_artifact
from modelkit.registry import runtime_for
from modelkit.scoring import decoded_file
from modelkit.signing import TrustedKeys
from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ModelType

GOLDEN_TOLERANCE = 1e-5
TIMED_PREDICTIONS = 51

_golden = msgspec.json.Decoder(Golden)


class TrialOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to try, and what is expected of it."""

    model_type: ModelType
    store_url: str
    address: str
    digest: str
    keys_folder: str
    slowest_prediction_ms: float


class TrialReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result. ``objection`` is None when the candidate may be served."""

    objection: str | None = None
    manifest: Manifest | None = None
    facts: dict[str, Any] = {}


def main() -> int:
    """Carry out the order on standard input; return the exit status (0 also for a candidate that is refused)."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=TrialOrder)
    sys.stdout.buffer.write(msgspec.json.encode(tried(order)))
    return 0


def tried(order: TrialOrder) -> TrialReport:
    """Load the candidate and ask it; every fault of the candidate is an objection in the report."""
    try:
        artifact = _opened(order)
        runtime = runtime_for(artifact)
        golden = decoded_file(artifact.files, GOLDEN, _golden)
        facts = _proven(golden, runtime) | _timed(golden, runtime, order)
        facts["artifact_bytes"] = sum(len(content) for content in artifact.files.values())
    except Exception as error:  # noqa: BLE001 - whatever a candidate does wrong while it is tried keeps it from being served
        return TrialReport(objection=str(error) if isinstance(error, ArtifactRejectedError) else repr(error))
    return TrialReport(manifest=artifact.manifest, facts=facts)


def _opened(order: TrialOrder) -> LoadedArtifact:
    if order.address.rsplit("/", 1)[-1] != order.digest:
        raise ArtifactRejectedError(f"{order.address} is not the address of digest {order.digest}")
    files = ContentStore(order.store_url).get(order.address)
    artifact = open_artifact(files, TrustedKeys.load(Path(order.keys_folder)))
    if artifact.manifest.model_type != order.model_type:
        raise ArtifactRejectedError(
            f"the artifact is a model for {artifact.manifest.model_type}, not for {order.model_type}"
        )
    return artifact


def _proven(golden: Golden, runtime: Runtime) -> dict[str, Any]:
    outputs = runtime.scores(np.asarray(golden.inputs, dtype=np.float32))
    expected = np.asarray(golden.outputs, dtype=np.float64)
    if outputs.shape != expected.shape:
        raise ArtifactRejectedError(f"golden predictions have shape {outputs.shape}, expected {expected.shape}")
    if not np.isfinite(outputs).all():
        raise ArtifactRejectedError("a golden prediction is not finite")
    # Relative above 1, absolute below: a float32 forecast of a million cannot be exact to 1e-5.
    off = float(np.max(np.abs(outputs - expected) / np.maximum(1.0, np.abs(expected))))
    if off > GOLDEN_TOLERANCE:
        raise ArtifactRejectedError(f"golden predictions are off by {off:.3g}, allowed is {GOLDEN_TOLERANCE}")
    return {"golden_rows": len(expected), "golden_off": off}


def _timed(golden: Golden, runtime: Runtime, order: TrialOrder) -> dict[str, Any]:
    row = np.asarray(golden.inputs[:1], dtype=np.float32)
    median = statistics.median(_milliseconds(runtime, row) for _ in range(TIMED_PREDICTIONS))
    if median > order.slowest_prediction_ms:
        raise ArtifactRejectedError(
            f"one prediction takes {median:.1f} ms, allowed are {order.slowest_prediction_ms:.1f} ms"
        )
    return {"prediction_ms": median}


def _milliseconds(runtime: Runtime, row: FloatArray) -> float:
    began = time.perf_counter()
    runtime.scores(row)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    sys.exit(main())
