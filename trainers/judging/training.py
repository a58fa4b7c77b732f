"""One training from snapshot to verdict, the same for all models. Runs in the child process; needs only the store.

The candidate that is best on the validation part is packed and signed, loaded as a replica would load it, and measured
once on the holdout. What is announced later is byte for byte what was measured here.
"""

from __future__ import annotations

import importlib.metadata
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
from modelkit.manifest import Manifest, open_artifact
from modelkit.registry import definition_of, runtime_for
from modelkit.signing import SigningKey
from modelkit.training.artifacts import packed, sanity_checks
from modelkit.training.interface import Candidate, Champion, FitContext, NotEnoughHistoryError, Snapshot, Trainer
from modelkit.training.validation import Judgement, judge
from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ArtifactKind, Verdict
from trainers.pipe import WorkOrder, WorkResult

Progress = Callable[[str, int, int, float | None], None]

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
    drafted = Manifest(
        model_type=order.model_type, kind=ArtifactKind.LEARNED, feature_names=candidate.feature_names, reducer_version=REDUCER_VERSION,
        created_at=bench.clock.now(), seed=order.seed, parent_digest=champion.digest if champion else None,
        snapshot_digest=order.snapshot.rsplit("/", 1)[-1], training_event_id=UUID(order.run_id), library_versions=library_versions(),
        metrics=msgspec.to_builtins(judgement.comparison) if judgement else {},
    )  # fmt: skip
    return packed(candidate, drafted, bench.key, outputs=outputs, numbers=judgement.numbers if judgement else None)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a fit depends on."""
    known = {}
    for name in LIBRARIES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known
