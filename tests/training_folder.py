"""Whole trainings in a folder: snapshot in, verdict out, and the winner becomes the champion of the next one."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from backends.store.content import ContentStore
from fincoach_events.events import AnyBehavioralEvent
from modelkit.installation_key import installation_key
from modelkit.interface import Runtime
from modelkit.manifest import open_artifact
from modelkit.registry import definition_of, runtime_for
from modelkit.version_zero import baseline_artifact
from schemas.vocabulary import ModelType
from tests.training_factories import snapshot_files
from trainers.judging.training import run_training
from trainers.pipe import WorkOrder, WorkResult
from trainers.running.worker import trainer_of

VERSION_0_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def silent(_phase: str, _step: int, _steps: int, _loss: float | None) -> None:
    """Ignore the progress."""


@dataclass
class TrainingFolder:
    """One model's store and keys; ``champion`` is the address of what is served, at first version 0."""

    folder: Path
    model_type: ModelType
    champion: str = field(init=False)

    def __post_init__(self) -> None:
        key = installation_key(self.folder / "keys")
        self.champion = self.store.put(
            "artifacts", baseline_artifact(definition_of(self.model_type), key, VERSION_0_AT)
        )

    @property
    def store(self) -> ContentStore:
        """Return the store."""
        return ContentStore(f"file://{self.folder / 'store'}")

    def train(self, events: Iterable[AnyBehavioralEvent], *, seed: int = 7) -> WorkResult:
        """Run one training on the events as a child process would; a winner is the next champion."""
        order = WorkOrder(
            model_type=self.model_type, run_id=str(UUID(int=1)), snapshot=self.store.put("snapshots", snapshot_files(events)),
            seed=seed, store_url=f"file://{self.folder / 'store'}", keys_folder=str(self.folder / "keys"), cpu_seconds=100,
            parent_pid=os.getpid(), champion=self.champion,
        )  # fmt: skip
        result = run_training(trainer_of(self.model_type), order, silent)
        self.champion = result.artifact or self.champion
        return result

    def served(self) -> Runtime:
        """Return the champion, loaded as a replica loads it."""
        key = installation_key(self.folder / "keys")
        return runtime_for(open_artifact(self.store.get(self.champion), key.trusted()))
