"""What the checks look at: folded events, a snapshot, version 0, and one training with everything that came of it. Needs no pytest."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from fincoach_events.events import AnyBehavioralEvent, encode_event
from modelkit.definition import ModelDefinition
from modelkit.features import REDUCER_VERSION, UserState, fold
from modelkit.interface import FloatArray
from modelkit.manifest import LoadedArtifact, Manifest, open_artifact
from modelkit.scoring import ScoringRuntime
from modelkit.signing import SigningKey
from modelkit.statistics.consistency import findings
from modelkit.statistics.events import FoldedEvent
from modelkit.training.artifacts import packed
from modelkit.training.interface import (
    EVENTS_FILE,
    FEEDBACK_FILE,
    Candidate,
    Champion,
    FitContext,
    Snapshot,
    Trainer,
)
from modelkit.training.snapshot_files import EVENT_SCHEMA, FEEDBACK_SCHEMA, ORDER, parquet_bytes
from modelkit.training.validation import Evidence
from modelkit.version_zero import baseline_artifact
from schemas.vocabulary import ArtifactKind

KEY = SigningKey.generate()
BUILT_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NO_DIGEST = "0" * 64


def folded_events(events: Iterable[AnyBehavioralEvent]) -> list[FoldedEvent]:
    """Return ``events`` (in the order of their log) as streams hands them to a data set: folded, with what is known of each."""
    states: dict[UUID, UserState] = {}
    watermarks: dict[str, dt.datetime] = {}
    folded = []
    for event in events:
        state = states.get(event.user_id)
        before = state.transactions if state is not None else 0
        found = findings(state, event)
        states[event.user_id] = after = fold(state, event)
        watermarks[event.source] = max(watermarks.get(event.source, event.occurred_at), event.occurred_at)
        age = (watermarks[event.source] - event.occurred_at).total_seconds()
        folded.append(FoldedEvent(event, age, before, after.transactions, found))
    return folded


def histories(events: Iterable[AnyBehavioralEvent]) -> dict[UUID, list[AnyBehavioralEvent]]:
    """Return the events of each user, in the order of the log."""
    found: dict[UUID, list[AnyBehavioralEvent]] = defaultdict(list)
    for event in events:
        found[event.user_id].append(event)
    return found


def snapshot_of(events: Iterable[AnyBehavioralEvent], *, new_from: int = 0, partitions: int = 2) -> Snapshot:
    """Return a snapshot of ``events`` (in the order of their log), those from number ``new_from`` on new.

    Nothing is cleaned: each event is kept as it is. It holds no feedback.
    """
    rows = [
        {
            "user_id": event.user_id.bytes, "occurred_at": event.occurred_at, "event_type": event.__struct_config__.tag,
            "interaction_type": event.interaction_type, "source": event.source, "generation": 1,
            "partition": event.user_id.int % partitions, "offset": number, "is_new": number >= new_from, "payload": encode_event(event),
            "cleaning": None, "repaired_minor": None,
        }
        for number, event in enumerate(events)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, EVENT_SCHEMA).sort_by(ORDER)
    files = {EVENTS_FILE: parquet_bytes(table), FEEDBACK_FILE: parquet_bytes(FEEDBACK_SCHEMA.empty_table())}
    return Snapshot(files, digest=NO_DIGEST)


def version_zero(definition: ModelDefinition) -> ScoringRuntime:
    """Return the model's version 0, loaded as a replica loads it."""
    return loaded_runtime(definition, opened(baseline_artifact(definition, KEY, BUILT_AT)))


def opened(artifact: dict[str, bytes]) -> LoadedArtifact:
    """Return a verified artifact."""
    return open_artifact(artifact, KEY.trusted())


def loaded_runtime(definition: ModelDefinition, loaded: LoadedArtifact) -> ScoringRuntime:
    """Return the runtime of an artifact once it reproduces the golden predictions."""
    runtime: ScoringRuntime = definition.runtime.load().from_artifact(loaded)
    return runtime


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One candidate, packed and loaded as a replica would load it; ``outputs`` is what it answers to the golden inputs."""

    candidate: Candidate
    loaded: LoadedArtifact
    runtime: ScoringRuntime
    outputs: FloatArray


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training made: examples, all candidates, and the evidence for the one that is best on the validation part."""

    trainer: Trainer[Any]
    samples: int
    candidates: Sequence[Fitted]
    evidence: Evidence

    @property
    def best(self) -> Fitted:
        """Return the candidate that is judged."""
        return self.candidates[0]


def train(definition: ModelDefinition, snapshot: Snapshot, *, seed: int) -> Training:
    """Train once as the child process does, with version 0 as the champion."""
    trainer = definition.trainer.load()
    champion = version_zero(definition)
    examples = trainer.prepare(snapshot, seed=seed)
    context = FitContext(
        seed=seed, progress=_nobody, champion=Champion(runtime=champion, digest=champion.digest, checkpoint={})
    )
    fitted = [_fitted(definition, candidate, seed=seed) for candidate in trainer.fit(examples, context)]
    fitted.sort(key=lambda each: each.candidate.validation_score, reverse=True)
    evidence = trainer.evaluate(examples, candidate=fitted[0].runtime, champion=champion, seed=seed)
    return Training(trainer=trainer, samples=trainer.samples(examples), candidates=fitted, evidence=evidence)


def _fitted(definition: ModelDefinition, candidate: Candidate, *, seed: int) -> Fitted:
    drafted = Manifest(
        model_type=definition.model_type, kind=ArtifactKind.LEARNED, feature_names=candidate.feature_names, reducer_version=REDUCER_VERSION,
        created_at=BUILT_AT, seed=seed, snapshot_digest=NO_DIGEST,
    )  # fmt: skip
    draft = opened(packed(candidate, drafted, KEY, outputs=np.asarray(candidate.expected)))
    outputs = definition.runtime.load().scorer(draft.manifest, draft.files)(candidate.golden_inputs)
    loaded = opened(packed(candidate, drafted, KEY, outputs=outputs))
    return Fitted(
        candidate=candidate, loaded=loaded, runtime=loaded_runtime(definition, loaded), outputs=np.asarray(outputs)
    )


def _nobody(_phase: str, _step: int, _steps: int, _loss: float | None) -> None:
    """Listen to no progress."""
