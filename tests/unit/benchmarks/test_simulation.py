"""The simulated year of thresholds: nothing is lost or counted twice in it, bursts coalesce, and its plot can be read."""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulation.__main__ import RULES, main
from benchmarks.simulation.arrivals import SYNTHETIC_BEGIN, Arrival, outcomes, real, spread, sufficient_users, synthetic
from benchmarks.simulation.plot import svg
from benchmarks.simulation.year import PANE_POINTS, Variant, Year, simulate, variants
from fincoach_events.identifiers import user_id_from_name
from schemas.thresholds import ThresholdRule
from stack.replay.settings import ReplaySettings
from tests.training_factories import transaction

DATA = ReplaySettings().data
needs_data = pytest.mark.skipif(
    not (DATA / "oulad" / "courses.csv.gz").is_file(), reason=f"the data sets are not in {DATA}; FINCOACH_DATA names their folder"
)  # fmt: skip


def year_of(name: str, arrivals: list[Arrival], *, threshold: int = 50, cool_down: int = 300) -> Year:
    """Return what one of the compared rules makes of the arrivals."""
    named = {variant.name: variant for variant in variants(threshold, cool_down_seconds=cool_down)}
    return simulate(arrivals, named[name])


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30)), min_size=1, max_size=120),
    st.sampled_from([variant.name for variant in variants(20, cool_down_seconds=600)]),
)
def test_every_data_point_is_learned_once_or_still_waits(told: list[tuple[int, int]], name: str) -> None:
    """The figures would compare rules on different amounts of data."""
    arrivals = spread(Arrival(SYNTHETIC_BEGIN + dt.timedelta(hours=hour), f"{user}") for hour, user in told)
    year = year_of(name, arrivals, threshold=20, cool_down=600)
    learned = sum(crossing.counted for crossing in year.crossings)
    assert learned + year.waiting[-1][1] == len(arrivals) == len(year.waited_hours)
    assert min(year.waited_hours) >= 0.0
    moments = [crossing.at for crossing in year.crossings]
    assert moments == sorted(moments)


def test_a_fixed_threshold_fires_once_for_each_of_its_counts() -> None:
    """The comparison would flatter the adaptive rule with a straw man."""
    arrivals = synthetic(days=100, mean_a_day=30)
    year = year_of("fixed", arrivals)
    assert len(year.crossings) == pytest.approx(len(arrivals) / 50, abs=PANE_POINTS)
    assert all(50 <= crossing.counted < 50 + PANE_POINTS for crossing in year.crossings)


def test_a_burst_coalesces_under_the_adaptive_rule_and_not_under_the_fixed_one() -> None:
    """The end of a term would train a model hundreds of times within an hour."""
    arrivals = synthetic(days=60, mean_a_day=10, burst=5_000)
    fixed, adaptive = (year_of(name, arrivals).figures() for name in ("fixed", "adaptive"))
    assert fixed["busiest_day"] >= 80
    assert adaptive["busiest_day"] <= 1 + 60 / 5  # one in five minutes of the hour in which they come


def test_of_the_circumstances_each_variant_is_told_what_its_name_says() -> None:
    """The table would name the season and show what size did."""
    arrivals = synthetic(days=60, mean_a_day=30)
    sentences = {name: year_of(name, arrivals).crossings[-1].sentence for name in ("fixed", "adaptive", "without size", "without season")}  # fmt: skip
    assert "adapted" not in sentences["fixed"]
    assert "1.00 for size" in sentences["without size"]
    assert "1.00 season" in sentences["without season"]
    assert "1.00 for size" not in sentences["adaptive"]


def test_one_user_alone_fires_nothing() -> None:
    """The simulated rule would lack the share of a user that the product has."""
    alone = [Arrival(arrival.at, "bot") for arrival in synthetic(days=30, mean_a_day=50)]
    assert simulate(alone, Variant(name="fixed", rule=ThresholdRule(threshold=50))).crossings == []


def test_what_counts_is_what_streams_counts() -> None:
    """A user would count for segmentation with every purchase, or before there is enough history."""
    events = [transaction(user, day, 100) for day in range(14) for user in ("ann", "ben")][:-9]
    found = list(sufficient_users(events))
    assert [arrival.user for arrival in found] == [user_id_from_name("test", "ann").hex]
    assert list(outcomes(events)) == []


def test_what_is_dated_to_one_moment_arrives_within_an_hour() -> None:
    """Thousands of outcomes would arrive within one second, which no host does."""
    placed = spread(Arrival(SYNTHETIC_BEGIN, str(number)) for number in range(7_200))
    assert placed[-1].at - placed[0].at == dt.timedelta(seconds=3_599.5)


def test_the_tool_writes_a_table_figures_and_a_small_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command in the document would not make what stands there."""
    assert (
        main(
            [
                "--synthetic",
                "--days",
                "100",
                "--plot",
                str(tmp_path / "plot.svg"),
                "--json",
                str(tmp_path / "figures.json"),
            ]
        )
        == 0
    )
    figures = msgspec.json.decode((tmp_path / "figures.json").read_bytes())
    assert set(figures) == set(RULES)
    assert figures["goal"]["adaptive"]["trainings"] < figures["goal"]["fixed"]["trainings"]
    drawn = (tmp_path / "plot.svg").read_bytes()
    assert len(drawn) < 100_000
    assert len(ET.fromstring(drawn).findall("{*}polyline")) == 2 * len(RULES)  # noqa: S314 - ours
    assert "| adaptive |" in capsys.readouterr().out


def test_a_missing_set_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader of the document would see a traceback."""
    assert main(["--data", str(tmp_path)]) == 1
    assert "is not there" in capsys.readouterr().err


def test_the_plot_of_a_year_without_trainings_can_be_drawn() -> None:
    """A quiet model would break the plot of all."""
    year = Year(name="fixed", crossings=[], waiting=[(SYNTHETIC_BEGIN, 0)], waited_hours=[])
    assert ET.fromstring(svg({"quiet": (year, year)})) is not None  # noqa: S314 - ours


@needs_data
def test_real_outcomes_of_students_coalesce() -> None:
    """Hundreds of trainings at the end of a term, which is why there is a cool-down at all, would come back."""
    arrivals = real("goal", DATA)
    threshold, cool_down = RULES["goal"]
    fixed, adaptive = (year_of(name, arrivals, threshold=threshold, cool_down=cool_down).figures() for name in ("fixed", "adaptive"))  # fmt: skip
    assert fixed["trainings"] > 350
    assert adaptive["trainings"] < fixed["trainings"] / 5
    assert adaptive["busiest_day"] <= 12
