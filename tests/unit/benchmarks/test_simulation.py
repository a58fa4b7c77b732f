"""The simulated year of thresholds: nothing is lost or counted twice in it, bursts coalesce, and its plot can be read."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulation.__main__ import RULES
from benchmarks.simulation.arrivals import SYNTHETIC_BEGIN, Arrival, outcomes, real, spread, sufficient_users, synthetic
from benchmarks.simulation.year import PANE_POINTS, Variant, Year, simulate, variants
from fincoach_events.identifiers import user_id_from_name
from schemas.thresholds import ThresholdRule
from tests.small_sets import REAL, needs_real_sets
from tests.training_factories import transaction


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


@needs_real_sets
def test_real_outcomes_of_students_coalesce() -> None:
    """Hundreds of trainings at the end of a term, which is why there is a cool-down at all, would come back."""
    arrivals = real("goal", REAL)
    threshold, cool_down = RULES["goal"]
    fixed, adaptive = (year_of(name, arrivals, threshold=threshold, cool_down=cool_down).figures() for name in ("fixed", "adaptive"))  # fmt: skip
    assert fixed["trainings"] > 350
    assert adaptive["trainings"] < fixed["trainings"] / 5
    assert adaptive["busiest_day"] <= 12
