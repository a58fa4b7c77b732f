"""From a candidate to the signed artifact that a replica loads, and what has to hold of it before it is judged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modelkit.interface import Runtime
from modelkit.manifest import CALIBRATION, FEATURES, GOLDEN, METRICS, MODEL, Manifest, build_artifact, golden_file
from modelkit.signing import SigningKey
from modelkit.training.interface import Candidate
from modelkit.training.validation import Check

LARGEST_ARTIFACT_BYTES = 64 * 1024 * 1024
SLOWEST_ROW_SECONDS = 0.005
TIMED_ROWS = 50


def packed(
    candidate: Candidate,
    drafted: Manifest,
    key: SigningKey,
    *,
    outputs: np.ndarray,
    numbers: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the signed artifact of ``candidate``.

    ``drafted`` says where it comes from; the candidate's own fields and parameters are added. ``outputs`` become the golden
    predictions, ``numbers`` the file of metrics.
    """
    files = {
        FEATURES: msgspec.json.encode(
            {"names": candidate.feature_names, "types": ["float32"] * len(candidate.feature_names)}
        ),
        **candidate.files,
        GOLDEN: golden_file(candidate.golden_inputs.tolist(), outputs.tolist()),
    }
    if candidate.calibration:
        files[CALIBRATION] = msgspec.json.encode(candidate.calibration, order="deterministic")
    if candidate.model is not None:
        files[MODEL] = candidate.model
    if numbers is not None:
        files[METRICS] = msgspec.json.encode(numbers, order="deterministic")
    manifest = msgspec.structs.replace(drafted, parameters=dict(candidate.parameters), **candidate.manifest)
    return build_artifact(manifest, files, key)


def sanity_checks(candidate: Candidate, runtime: Runtime, outputs: np.ndarray) -> list[Check]:
    """Return the first gate: the exported model answers what the trained one answers, in numbers, small and fast."""
    difference = (
        float(np.max(np.abs(outputs - candidate.expected)))
        if outputs.shape == candidate.expected.shape
        else float("inf")
    )
    size = len(candidate.model or b"") + sum(len(content) for content in candidate.files.values())
    seconds = _median_seconds(runtime, candidate)
    return [
        Check(stage="sanity", name="golden_finite", passed=bool(np.all(np.isfinite(outputs))), sentence="the golden outputs are finite"),
        Check(
            stage="sanity", name="parity", passed=difference <= candidate.tolerance * max(1.0, float(np.max(np.abs(candidate.expected)))),
            sentence=f"the exported model differs by {difference:.2e} from the trained one", numbers={"difference": difference},
        ),
        Check(
            stage="sanity", name="size", passed=size <= LARGEST_ARTIFACT_BYTES,
            sentence=f"{size} bytes, at most {LARGEST_ARTIFACT_BYTES}", numbers={"bytes": size},
        ),
        Check(
            stage="sanity", name="latency", passed=seconds <= SLOWEST_ROW_SECONDS,
            sentence=f"one row takes {seconds * 1e3:.3f} ms, at most {SLOWEST_ROW_SECONDS * 1e3:.0f} ms", numbers={"seconds": seconds},
        ),
    ]  # fmt: skip


def _median_seconds(runtime: Runtime, candidate: Candidate) -> float:
    row = candidate.golden_inputs[:1]
    times = []
    for _ in range(TIMED_ROWS):
        began = time.perf_counter()
        runtime.scores(row)
        times.append(time.perf_counter() - began)
    return float(np.median(times))
