"""Panes: what a batch adds to the data sets."""

from __future__ import annotations

from modelkit.statistics.sketches import MOST_SOURCES, OTHER_SOURCES, DatasetStatistics
from streams.panes import (
    Watermarks,
    close_pane,
    decode_pane,
    decode_statistics,
    encode_pane,
    encode_statistics,
)
from tests.four_models import data_sets_of_four
from tests.unit.streams.worlds import aimed, answered, folded, looked, paid


def test_each_event_reaches_its_data_sets() -> None:
    """Each event, duplicate and dead letter counts in its data sets."""
    pane = close_pane(
        data_sets_of_four(),
        [folded(paid()), folded(answered()), folded(aimed("fail")), folded(looked())],
        duplicate_types=["transaction_creation", "page_view"],
        dead=[("goal_modification", "missing_field"), ("goal_modification", "in_the_future"), (None, "not_json")],
        watermarks={"host": 5.0},
    )
    counts = pane.counts()
    assert {name: counts[name].counted for name in counts} == {
        "recommendation": 1, "segmentation": 0, "spending": 1, "goal": 1,
    }  # fmt: skip
    assert (counts["spending"].duplicates, counts["segmentation"].duplicates) == (1, 1)
    assert (counts["goal"].invalid, counts["goal"].missing, counts["recommendation"].invalid) == (2, 1, 0)


def test_a_pane_of_nothing_is_empty() -> None:
    """A pane without relevant events is empty."""
    assert (
        close_pane(data_sets_of_four(), [folded(looked())], duplicate_types=[], dead=[], watermarks={}).datasets == {}
    )


def test_time_on_a_page_reaches_the_recommendation_set() -> None:
    """Page views count as implicit feedback of the recommendation data set only."""
    pane = close_pane(
        data_sets_of_four(),
        [folded(looked(duration_seconds=9.0)), folded(answered())],
        duplicate_types=[],
        dead=[],
        watermarks={},
    )
    counts = pane.counts()["recommendation"]
    assert (counts.counted, counts.relevant, counts.page_views, counts.page_seconds) == (1, 1, 1, 9)
    assert list(pane.datasets) == ["recommendation"]


def test_a_pane_survives_its_bytes() -> None:
    """A pane and its statistics are read back as written."""
    pane = close_pane(data_sets_of_four(), [folded(paid())], duplicate_types=[], dead=[], watermarks={"host": 1.5})
    assert decode_pane(encode_pane(pane)) == pane
    statistics = pane.datasets["spending"]
    assert decode_statistics(encode_statistics(statistics)) == statistics
    assert decode_statistics(None) == DatasetStatistics()


def test_each_source_has_its_own_clock() -> None:
    """Each source's ages follow its own watermark."""
    watermarks = Watermarks()
    assert watermarks.age("host", 1_000.0) == 0
    assert watermarks.age("replay:old", 10.0) == 0
    assert watermarks.age("replay:old", 4.0) == 6.0
    assert watermarks.age("host", 990.0) == 10.0
    assert Watermarks(watermarks.seconds).age("host", 1_000.0) == 0


def test_sources_are_bounded() -> None:
    """Sources beyond the limit share one watermark."""
    watermarks = Watermarks()
    for number in range(MOST_SOURCES + 50):
        watermarks.age(f"source-{number}", float(number))
    assert len(watermarks.seconds) == MOST_SOURCES + 1
    assert OTHER_SOURCES in watermarks.seconds
