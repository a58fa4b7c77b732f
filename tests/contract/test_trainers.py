"""One training from its order to its verdict, as the child process makes it. What each trainer promises itself is in test_models."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from backends.clock import SystemClock
from backends.store.content import ContentStore
from modelkit.installation_key import installation_key
from modelkit.manifest import open_artifact
from modelkit.registry import definition_of, runtime_for
from modelkit.version_zero import baseline_artifact
from schemas.vocabulary import ModelType, Verdict
from tests.training_factories import shop_history, snapshot_files, transaction
from trainers.judging.training import run_training
from trainers.pipe import WorkOrder, WorkProgressed, WorkResult, line_of, message_of, order_of
from trainers.running.worker import trainer_of

RUN_ID = UUID(int=5)
MODEL: ModelType = "segmentation"  # purchases alone are enough for it, and it fits quickly


def silent(_phase: str, _step: int, _steps: int, _loss: float | None) -> None:
    """Tell nobody."""


def order_for(model_type: ModelType, folder: Path, files: dict[str, bytes], *, with_champion: bool = True) -> WorkOrder:
    """Return an order over a snapshot in a store of its own, with version 0 as the champion."""
    store = ContentStore(f"file://{folder}/store")
    baseline = baseline_artifact(definition_of(model_type), installation_key(folder / "keys"), SystemClock().now())
    return WorkOrder(
        model_type=model_type, run_id=str(RUN_ID), snapshot=store.put("snapshots", files), seed=3, store_url=f"file://{folder}/store",
        keys_folder=str(folder / "keys"), cpu_seconds=300, parent_pid=1,
        champion=store.put("artifacts", baseline) if with_champion else None,
    )  # fmt: skip


@pytest.mark.parametrize("events", [0, 1])
def test_too_little_history_keeps_the_champion_and_says_what_is_missing(events: int, tmp_path: Path) -> None:
    """The first crossings of a young installation keep the champion; they are no failures that are tried three times."""
    files = snapshot_files([transaction("alone", 1, 500)] * events)
    result = run_training(trainer_of(MODEL), order_for(MODEL, tmp_path, files), silent)
    assert result.verdict == Verdict.CHAMPION_KEPT
    assert "not enough" in result.reasons[0]
    assert result.artifact is None


@pytest.fixture(scope="module")
def shop() -> dict[str, bytes]:
    """Give a snapshot of a shop's purchases."""
    return snapshot_files(shop_history(users=400, weeks=40))


def test_the_same_snapshot_and_seed_give_the_same_verdict_and_the_same_content(
    shop: dict[str, bytes], tmp_path: Path
) -> None:
    """A served model can be made again from what is recorded about it."""
    results = [
        run_training(trainer_of(MODEL), order_for(MODEL, tmp_path / str(number), shop), silent) for number in range(2)
    ]
    first, second = results
    assert (first.verdict, first.reasons[-1], first.comparison) == (
        second.verdict,
        second.reasons[-1],
        second.comparison,
    )
    digests = {content_digest(result, tmp_path / str(number)) for number, result in enumerate(results)}
    assert len(digests) == 1


def content_digest(result: WorkResult, folder: Path) -> str | None:
    """Return the digest of what decides every answer; None where no candidate won."""
    if result.artifact is None:
        return None
    files = ContentStore(f"file://{folder}/store").get(result.artifact)
    loaded = open_artifact(files, installation_key(folder / "keys").trusted())
    runtime_for(loaded).warm_up()
    assert loaded.manifest.training_event_id == RUN_ID
    return loaded.digest


def test_a_verdict_comes_with_every_number(shop: dict[str, bytes], tmp_path: Path) -> None:
    """People see a decision with its reasons and figures."""
    result = run_training(trainer_of(MODEL), order_for(MODEL, tmp_path, shop), silent)
    assert result.comparison is not None
    assert {"values", "checks", "validation_scores", "seed", "samples", "users"} <= set(result.numbers)
    assert result.comparison.baseline_name in result.numbers["values"]
    assert result.samples > 0
    assert result.reasons
    assert message_of.decode(line_of(result)).verdict == result.verdict


def test_a_lost_champion_does_not_end_all_training(shop: dict[str, bytes], tmp_path: Path) -> None:
    """A model can still be trained when its champion is missing from the store."""
    order = order_for(MODEL, tmp_path, shop)
    assert order.champion is not None
    ContentStore(order.store_url).delete(order.champion)
    result = run_training(trainer_of(MODEL), order, silent)
    assert result.comparison is not None
    assert result.comparison.champion is None


def test_what_goes_through_the_pipe_comes_out_of_it() -> None:
    """Parent and child exchange messages unchanged."""
    order = WorkOrder(
        model_type="goal",
        run_id="x",
        snapshot="s",
        seed=1,
        store_url="u",
        keys_folder="k",
        cpu_seconds=1,
        parent_pid=2,
    )
    assert order_of.decode(line_of(order)) == order
    progressed = WorkProgressed(phase="fitting", step=1, steps=2, loss=0.5)
    assert message_of.decode(line_of(progressed)) == progressed
