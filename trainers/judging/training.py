"""One training from snapshot to verdict, the same for all four models. Runs in the child process; needs only the store.

The candidate that is best on the validation part is packed and signed, loaded as a replica would load it, and measured
once on the holdout. What is announced later is byte for byte what was measured here.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from backends.clock import Clock, SystemClock
from backends.store.content import ContentStore
from modelkit.features import REDUCER_VERSION
from modelkit.installation_key import installation_key
from modelkit.interface import Runtime
from modelkit.manifest import (
    CALIBRATION,
    FEATURES,
    GOLDEN,
    METRICS,
    MODEL,
    Manifest,
    build_artifact,
    golden_file,
    open_artifact,
)
from modelkit.registry import definition_of, runtime_for
from modelkit.signing import SigningKey
from modelkit.training.interface import Candidate, Champion, FitContext, NotEnoughHistoryError, Snapshot, Trainer
from modelkit.training.validation import Check, Judgement, judge
from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ArtifactKind, Verdict
from trainers.pipe import WorkOrder, WorkResult

Progress = Callable[[str, int, int, float | None], None]

LARGEST_ARTIFACT_BYTES = 64 * 1024 * 1024
SLOWEST_ROW_SECONDS = 0.005
TIMED_ROWS = 50
LIBRARIES = ("numpy", "onnxruntime", "torch", "lightgbm", "scikit-learn", "d3rlpy", "skl2onnx", "onnx", "pyarrow")


class Workbench:
    """The store and the keys of one order."""

    def __init__(self, order: WorkOrder, *, clock: Clock | None = None) -> None:
        self.order = order
        self.clock = clock or SystemClock()
        self.store = ContentStore(order.store_url)
        self.key: SigningKey = installation_key(Path(order.keys_folder))

    def snapshot(self) -> Snapshot:
        """Return the verified snapshot."""
        return Snapshot(self.store.get(self.order.snapshot), digest=self.order.snapshot.rsplit("/", 1)[-1])

    def champion(self) -> Champion | None:
        """Return the version that is served now, loaded; None when there is none or it cannot be loaded any more."""
        address = self.order.champion
        if address is None:
            return None
        try:
            loaded = open_artifact(self.store.get(address), self.key.trusted())
            checkpoint = self.store.get(self.order.champion_checkpoint) if self.order.champion_checkpoint else {}
        except ArtifactRejectedError:
            return None  # a lost or foreign champion must not end all training
        return Champion(runtime=runtime_for(loaded), digest=address.rsplit("/", 1)[-1], checkpoint=checkpoint)


def run_training(trainer: Trainer[Any], order: WorkOrder, progress: Progress) -> WorkResult:
    """Return the verdict of one training; when a candidate wins, its artifact is in the store."""
    bench = Workbench(order)
    champion = bench.champion()
    progress("preparing", 0, 1, None)
    try:
        examples = trainer.prepare(bench.snapshot(), seed=order.seed)
        context = FitContext(seed=order.seed, progress=progress, champion=champion)
        candidates = sorted(
            trainer.fit(examples, context), key=lambda candidate: candidate.validation_score, reverse=True
        )
    except NotEnoughHistoryError as error:
        return WorkResult(
            verdict=Verdict.CHAMPION_KEPT, reasons=(str(error),), numbers={"not_enough_history": error.facts}
        )
    progress("judging", 0, 1, None)
    return _judged(trainer, bench, examples=examples, candidates=candidates, champion=champion)


def _judged(
    trainer: Trainer[Any], bench: Workbench, *, examples: Any, candidates: Sequence[Candidate], champion: Champion | None  # noqa: ANN401 - the trainer's own
) -> WorkResult:  # fmt: skip
    order, chosen = bench.order, candidates[0]
    samples = trainer.samples(examples)
    runtime, outputs = _trial(chosen, bench, champion)
    sanity = sanity_checks(chosen, runtime, outputs)
    evidence = trainer.evaluate(
        examples, candidate=runtime, champion=champion.runtime if champion else None, seed=order.seed
    )
    judgement = judge(evidence, trainer.policy, sanity=sanity, seed=order.seed)
    numbers = {
        **judgement.numbers,
        # Such a candidate has beaten the trivial baselines alone: people must see that.
        "champion_unavailable": order.champion is not None and champion is None,
        "candidate": chosen.name,
        "family": chosen.parameters.get("family", chosen.name),
        "validation_scores": {candidate.name: candidate.validation_score for candidate in candidates},
        "samples": samples,
        "seed": order.seed,
    }
    result = WorkResult(
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        numbers=numbers,
        samples=samples,
        comparison=judgement.comparison,
    )
    if judgement.verdict != Verdict.CANDIDATE_WINS:
        return result
    files = pack(chosen, bench, champion, outputs=outputs, judgement=judgement)
    return msgspec.structs.replace(
        result,
        artifact=bench.store.put("artifacts", files),
        checkpoint=bench.store.put("checkpoints", chosen.checkpoint) if chosen.checkpoint else None,
    )


def _trial(candidate: Candidate, bench: Workbench, champion: Champion | None) -> tuple[Runtime, np.ndarray]:
    """Load the packed candidate as a replica would, and return it with its own answers to the golden inputs."""
    draft = open_artifact(pack(candidate, bench, champion, outputs=candidate.expected), bench.key.trusted())
    outputs = (
        definition_of(draft.manifest.model_type)
        .runtime.load()
        .scorer(draft.manifest, draft.files)(candidate.golden_inputs)
    )
    files = pack(candidate, bench, champion, outputs=outputs)
    return runtime_for(open_artifact(files, bench.key.trusted())), outputs


def pack(
    candidate: Candidate, bench: Workbench, champion: Champion | None, *, outputs: np.ndarray, judgement: Judgement | None = None
) -> dict[str, bytes]:  # fmt: skip
    """Return the signed artifact; ``outputs`` become its golden predictions."""
    order = bench.order
    files = {
        FEATURES: msgspec.json.encode({"names": candidate.feature_names, "types": ["float32"] * len(candidate.feature_names)}),
        **candidate.files,
        GOLDEN: golden_file(candidate.golden_inputs.tolist(), outputs.tolist()),
    }  # fmt: skip
    if candidate.calibration:
        files[CALIBRATION] = msgspec.json.encode(candidate.calibration, order="deterministic")
    if candidate.model is not None:
        files[MODEL] = candidate.model
    if judgement is not None:
        files[METRICS] = msgspec.json.encode(judgement.numbers, order="deterministic")
    manifest = Manifest(
        model_type=order.model_type, kind=ArtifactKind.LEARNED, feature_names=candidate.feature_names, reducer_version=REDUCER_VERSION,
        created_at=bench.clock.now(), seed=order.seed, parent_digest=champion.digest if champion else None,
        snapshot_digest=order.snapshot.rsplit("/", 1)[-1], training_event_id=UUID(order.run_id), library_versions=library_versions(),
        parameters=dict(candidate.parameters), metrics=msgspec.to_builtins(judgement.comparison) if judgement else {}, **candidate.manifest,
    )  # fmt: skip
    return build_artifact(manifest, files, bench.key)


def sanity_checks(candidate: Candidate, runtime: Runtime, outputs: np.ndarray) -> list[Check]:
    """Return the first gate: the exported model gives finite numbers, equals the trained one, and is small and fast."""
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


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a fit depends on."""
    known = {}
    for name in LIBRARIES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known
