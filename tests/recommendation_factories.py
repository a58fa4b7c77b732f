"""What the tests of the recommendation trainer use: served recommendations whose truth is known, and a workshop to train in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from backends.store.content import ContentStore
from fincoach_events.events import AnyBehavioralEvent, PageViewed, encode_event
from modelkit.features import REDUCER_VERSION, STATE_FEATURES
from modelkit.installation_key import installation_key
from modelkit.registry import definition_of
from modelkit.training.interface import EVENTS_FILE, FEEDBACK_FILE, Snapshot
from modelkit.training.snapshot_files import EVENT_SCHEMA, FEEDBACK_SCHEMA, ORDER, parquet_bytes
from modelkit.version_zero import baseline_artifact
from models.recommendation.settings import RecommendationTrainingSettings
from models.recommendation.training import TRAINER
from models.recommendation.training.examples import ARMS, RecommendationExamples
from trainers.judging.training import run_training
from trainers.pipe import WorkOrder, WorkResult

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SEEN, ANSWERED = dt.timedelta(seconds=60), dt.timedelta(seconds=120)
USERS = 200
RUN = UUID(int=7)
WEIGHTS = RecommendationTrainingSettings().recommendation_reward_weights


def contexts_of(generator: np.random.Generator, rows: int) -> FloatArray:
    """Return rows whose amounts span orders of magnitude; the first two columns decide what a user likes."""
    contexts = generator.normal(0, 1, (rows, len(STATE_FEATURES)))
    contexts[:, 0] = np.exp(generator.normal(6, 1.5, rows))
    contexts[:, 1] = generator.exponential(30, rows)
    return contexts


def liked(contexts: FloatArray) -> FloatArray:
    """Return how likely each action is to be liked, (n, 5): rich users like the first, poor spenders the third, others the last."""
    rich, spending = contexts[:, 0] > np.exp(6.5), contexts[:, 1] > 20
    chances = np.full((len(contexts), ARMS), 0.15)
    chances[rich, 0] = 0.9
    chances[~rich & spending, 2] = 0.9
    chances[~rich & ~spending, 4] = 0.8
    return chances


def indifferent(contexts: FloatArray) -> FloatArray:
    """Return chances that depend neither on the action nor on the user."""
    return np.full((len(contexts), ARMS), 0.4)


def served(
    rows: int, *, seed: int, taste: Callable[[FloatArray], FloatArray] = liked, first: int = 0, is_new: bool = True,
    policy: Callable[[FloatArray], FloatArray] | None = None,
) -> list[Row]:  # fmt: skip
    """Return what a replica served, by default evenly, and what came back within two minutes."""
    generator = np.random.default_rng(seed)
    contexts = contexts_of(generator, rows)
    chances = policy(contexts) if policy else np.full((rows, ARMS), 1 / ARMS)
    return [
        _answered(first + number, contexts[number], chances[number], taste(contexts)[number], generator, is_new=is_new)
        for number in range(rows)
    ]


def _answered(
    number: int, context: FloatArray, chances: FloatArray, likes: FloatArray, generator: np.random.Generator, *, is_new: bool
) -> Row:  # fmt: skip
    action, moment = int(generator.choice(ARMS, p=chances)), BEGIN + dt.timedelta(minutes=number)
    answer = _answer(generator, likes[action])
    return {
        "prediction_id": UUID(int=number).bytes, "user_id": UUID(int=int(generator.integers(USERS))).bytes, "predicted_at": moment,
        "version": "0.0.0", "kind": "baseline", "reducer_version": REDUCER_VERSION, "action_set": "fincoach-5", "action": action,
        "propensity": float(chances[action]), "propensities": chances.tolist(), "features": context.astype(np.float32).tolist(),
        "shown_at": moment + SEEN, "responses": [answer] if answer else [], "responded_at": [moment + ANSWERED] if answer else [],
        "is_new": is_new,
    }  # fmt: skip


def _answer(generator: np.random.Generator, chance: float) -> str | None:
    if generator.random() < chance:
        return str(generator.choice(["click", "helpful", "implement"]))
    return str(generator.choice(["dismiss", "not_helpful"])) if generator.random() < 0.6 else None


def files_of(rows: Sequence[Row], events: Sequence[AnyBehavioralEvent] = ()) -> dict[str, bytes]:
    """Return a snapshot's files; behind ``events`` comes a newest one; only its time matters."""
    newest = max(row["predicted_at"] for row in rows) + dt.timedelta(days=1)
    last = PageViewed(event_id=UUID(int=1), user_id=UUID(int=10**9), occurred_at=newest, consent=True, page_url="/")
    table = [
        {
            "user_id": event.user_id.bytes, "occurred_at": event.occurred_at, "event_type": event.__struct_config__.tag,
            "interaction_type": event.interaction_type, "source": "test", "generation": 0, "partition": 0, "offset": offset,
            "is_new": True, "payload": encode_event(event),
        }
        for offset, event in enumerate([*events, last])
    ]  # fmt: skip
    return {
        FEEDBACK_FILE: parquet_bytes(pa.Table.from_pylist(list(rows), schema=FEEDBACK_SCHEMA)),
        EVENTS_FILE: parquet_bytes(pa.Table.from_pylist(table, schema=EVENT_SCHEMA).sort_by(ORDER)),
    }


def snapshot_of(rows: Sequence[Row], events: Sequence[AnyBehavioralEvent] = ()) -> Snapshot:
    """Return a snapshot in memory."""
    return Snapshot(files_of(rows, events), digest="0" * 64)


def examples_of(rows: Sequence[Row]) -> RecommendationExamples:
    """Return the examples that the trainer makes."""
    return TRAINER.prepare(snapshot_of(rows), seed=0)


class Workshop:
    """A store with version 0, in which the trainings run as in the child process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store = ContentStore(f"file://{folder / 'store'}")
        self.key = installation_key(folder / "keys")
        self.champion = self.store.put("artifacts", baseline_artifact(definition_of("recommendation"), self.key, BEGIN))

    def train(
        self, rows: Sequence[Row], *, seed: int = 0, champion: str | None = None, checkpoint: str | None = None
    ) -> WorkResult:
        """Return the result of one training."""
        order = WorkOrder(
            model_type="recommendation", run_id=str(RUN), snapshot=self.store.put("snapshots", files_of(rows)), seed=seed,
            store_url=f"file://{self._folder / 'store'}", keys_folder=str(self._folder / "keys"), cpu_seconds=60, parent_pid=1,
            champion=champion or self.champion, champion_checkpoint=checkpoint,
        )  # fmt: skip
        return run_training(TRAINER, order, lambda *_: None)
