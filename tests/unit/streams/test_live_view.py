"""The live view: each pane is folded once, and a missing one is noticed."""

from __future__ import annotations

import uuid

from schemas.messages.envelope import OffsetRange
from schemas.messages.progress import DatasetCounts, PaneClosed
from schemas.vocabulary import ModelType
from streams.epochs.live_view import LiveDataset, decode_live, encode_live, fold_pane
from streams.reading.live import LiveView
from tests.four_models import FOUR_MODELS
from tests.unit.streams.worlds import NOON


def pane(start: int, end: int, *, partition: int = 0, counted: int = 5) -> PaneClosed:
    """Return a closed pane of spending data."""
    return PaneClosed(
        event_id=uuid.uuid4(),
        occurred_at=NOON,
        range=OffsetRange(topic="t", generation=1, partition=partition, from_offset=start, to_offset=end),
        records=end - start, archived=end - start, duplicates=0, dead_lettered=0, not_consented=0,
        datasets={"spending": DatasetCounts(counted=counted, relevant=10, invalid=10)},
    )  # fmt: skip


def test_panes_are_summed_by_partition() -> None:
    """The view sums the panes of all partitions."""
    live = fold_pane(LiveDataset(epoch=3), "spending", pane(0, 10))
    assert live is not None
    live = fold_pane(live, "spending", pane(0, 7, partition=1))
    assert live is not None
    assert (live.epoch, live.counts.counted, live.through) == (3, 10, {0: 10, 1: 7})
    assert live.quality is not None
    assert live.quality < 1


def test_a_pane_that_comes_twice_changes_nothing() -> None:
    """A repeated pane changes nothing."""
    live = fold_pane(LiveDataset(epoch=1), "spending", pane(0, 10))
    assert live is not None
    assert fold_pane(live, "spending", pane(0, 10)) is live


def test_a_missing_pane_asks_for_a_rebuild() -> None:
    """A missing pane requires a rebuild."""
    assert fold_pane(LiveDataset(epoch=1), "spending", pane(10, 20)) is None


def test_a_pane_without_data_of_the_model_moves_on() -> None:
    """A pane without data of the model advances the view."""
    live = fold_pane(LiveDataset(epoch=1), "goal", pane(0, 10))
    assert live == LiveDataset(epoch=1, through={0: 10})
    assert decode_live(encode_live(LiveDataset(epoch=1, through={0: 10}))) == live


async def test_a_new_process_asks_the_database_before_it_goes_on() -> None:
    """A new process reads the database first, not the old changelog."""
    of_old_database = LiveDataset(epoch=1, counts=DatasetCounts(counted=300), through={0: 10})
    table = {name.encode(): encode_live(of_old_database) for name in FOUR_MODELS}
    asked: list[ModelType] = []

    async def of_database(model_type: ModelType) -> LiveDataset:
        asked.append(model_type)
        return LiveDataset(epoch=1, counts=DatasetCounts(counted=5), through={0: 20})

    live = LiveView(table, of_database, models=FOUR_MODELS)
    await live.take_pane(pane(10, 20))
    await live.take_pane(pane(20, 30))
    shown = live.get("spending")
    assert shown is not None
    assert (shown.counts.counted, asked) == (10, list(FOUR_MODELS))
