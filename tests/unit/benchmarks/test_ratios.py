"""Medians, ratios, percentiles and the table of the benchmarks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plan import NAMES
from benchmarks.ratios import AIMS, Samples, bounded, compare, percentile, skipped, table


def test_the_ratio_is_that_of_the_medians() -> None:
    """One slow round would decide a comparison."""
    samples = Samples(ours=[10.0, 30.0, 20.0], peer=[5.0, 4.0, 100.0])
    found = compare("a_vs_b", samples, peer_name="b", unit="events/s")
    assert (found.ours, found.peer, found.ratio) == (20.0, 5.0, 4.0)
    assert found.command == 'make bench ARGS="--only a_vs_b"'


@pytest.mark.parametrize("samples", [Samples(), Samples(ours=[1.0], peer=[]), Samples(ours=[1.0], peer=[0.0])])
def test_no_ratio_is_made_up(samples: Samples) -> None:
    """A comparison without a round of both sides, or with an idle peer, would show a figure."""
    with pytest.raises(ValueError, match="a_vs_b"):
        compare("a_vs_b", samples, peer_name="b", unit="ms")


def test_samples_do_not_share_their_lists() -> None:
    """The rounds of one comparison would run into those of another."""
    Samples().add(ours=1.0, peer=2.0)
    assert Samples() == Samples(ours=[], peer=[])


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_covers_its_share(values: list[float], share: float) -> None:
    """A latency that fewer requests keep than claimed would be reported, or a larger one than needed."""
    found = percentile(values, share)
    covered = sum(value <= found for value in values)
    assert found in values
    assert covered >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_of_a_hundred_values_the_99th_is_the_percentile() -> None:
    """The usual reading of p99 would be off by one."""
    assert percentile(range(1, 101), 0.99) == 99


def test_the_table_names_what_was_skipped_and_why() -> None:
    """A comparison that was not made would look like one that was not asked for."""
    shown = table(
        [
            compare("a_vs_b", Samples(ours=[1234.5], peer=[2.0]), peer_name="B", unit="events/s"),
            skipped("c_vs_d", "D is not to be had.", peer_name="D", unit="ms"),
        ]
    )
    lines = shown.splitlines()
    assert lines[2].split() == ["a_vs_b", "1,234", "2.00", "events/s", "617.25", "-", "B"]
    assert lines[3].split() == ["c_vs_d", "-", "-", "ms", "-", "-", "D"]
    assert lines[4] == "skipped: c_vs_d: D is not to be had."


@pytest.mark.parametrize(("ours", "met"), [(63.9, True), (64.0, True), (64.1, False)])
def test_a_bound_stands_where_a_peer_would(ours: float, met: bool) -> None:  # noqa: FBT001 - a case of the test
    """A figure without a peer would have nothing to be judged by."""
    found = bounded("growth_mib", ours, bound=64.0, unit="MiB")
    assert (found.peer, found.met, found.peer_name) == (64.0, met, "the bound: at most 64 MiB")
    assert ("at most 1.00: met" in table([found])) is met


def test_what_was_promised_is_judged() -> None:
    """A missed promise would look like a kept one."""
    good, bad = (
        compare("ingest_vs_bare_sql", Samples(ours=[rate], peer=[100.0]), peer_name="SQL", unit="events/s")
        for rate in (70.0, 69.0)
    )
    assert (good.met, bad.met) == (True, False)
    assert "at least 0.70: met" in table([good])
    assert "at least 0.70: missed" in table([bad])


def test_every_aim_belongs_to_a_comparison() -> None:
    """A comparison that was renamed would lose its aim."""
    assert set(AIMS) <= set(NAMES)
