"""Planted defects are reported at their known rate, other figures do not move, and clean data gets no blame.

Each test runs on small sets that the tests generate; ``make prove`` also runs it on the real ones.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fincoach_events.events import AnyBehavioralEvent, GoalModified, RecommendationInteraction, TransactionCreated
from schemas.vocabulary import FEEDBACK_INTERACTIONS, GOAL_OUTCOMES
from streams.quality.assessment import assess
from tests.four_models import FOUR_MODELS
from tests.planted_defects import (
    DEFECTS,
    MODELS,
    SEED,
    TOLERANCE,
    Defect,
    Events,
    events_of,
    judged,
    outcomes,
    statistics_of,
)
from tests.small_sets import REAL, needs_real_sets, small_folder

EVERY_NTH_USER = {"onlineretail": 3, "oulad": 24, "heartsteps": 1}  # about 6,000 events of each real set
# The diversity of more users than counters is an estimate, which varies by chance with the events.
ESTIMATED = 0.02


@pytest.fixture(params=["small", pytest.param("real", marks=[pytest.mark.prove, needs_real_sets])])
def data(request: pytest.FixtureRequest) -> Path:
    """Give a folder of sets."""
    return REAL if request.param == "real" else small_folder()


def nth_user(world: str, data: Path) -> int:
    """Return n, where every n-th user is taken; small sets are taken whole."""
    return EVERY_NTH_USER[world] if data == REAL else 1


def all_events(world: str, data: Path) -> Events:
    """Return the events of a small set, or of a part of a real one of about the same size."""
    return list(events_of(world, data=data, every_nth_user=nth_user(world, data)))


@pytest.mark.parametrize("defect", DEFECTS, ids=[f"{defect.world}: {defect.name}" for defect in DEFECTS])
def test_each_defect_is_reported_at_its_rate_and_nowhere_else(defect: Defect, data: Path) -> None:
    """Each defect is reported at its rate, and no other dimension moves."""
    for outcome in outcomes(defect, data=data, every_nth_user=nth_user(defect.world, data)):
        assert outcome.error <= TOLERANCE, (outcome.planted, outcome.clean, outcome.reported)
        assert outcome.moved <= ESTIMATED, outcome


@pytest.mark.parametrize(("world", "dirt"), [("onlineretail", 0.001), ("oulad", 0.002), ("heartsteps", 0.0)])
def test_clean_data_is_not_blamed(world: str, dirt: float, data: Path) -> None:
    """Clean data scores high; only the real sets' own dirt (zero amounts, missing scores) shows."""
    assessment = judged(all_events(world, data), MODELS[world])
    for name, value in assessment.dimensions.items():
        if name != "diversity":
            assert value is not None
            assert value >= 1 - dirt, (name, value)
    assert assessment.score >= 0.9
    assert assessment.below_floor == ()


@pytest.mark.parametrize("world", ["onlineretail", "oulad"])
def test_what_arrives_half_a_day_late_is_not_blamed(world: str, data: Path) -> None:
    """Delays of half a day do not lower the quality."""
    events = all_events(world, data)
    generator = np.random.default_rng(SEED)
    seconds = np.array([event.occurred_at.timestamp() for event in events])
    arrived = seconds + (generator.random(len(events)) < 0.2) * generator.uniform(0, 12 * 3_600, len(events))
    late = judged([events[place] for place in np.argsort(arrived, kind="stable")], MODELS[world])
    in_order = judged(events, MODELS[world])
    assert late.dimensions == {
        **in_order.dimensions,
        "diversity": pytest.approx(in_order.dimensions["diversity"], abs=TOLERANCE),
    }


@pytest.mark.parametrize("world", MODELS)
def test_diversity_is_the_entropy_that_can_be_counted(world: str, data: Path) -> None:
    """Diversity equals the entropy from a recount of the events, within the tolerance."""
    events = all_events(world, data)[:2_000]
    found = judged(events, MODELS[world]).dimensions["diversity"]
    assert found == pytest.approx(counted_diversity(events), abs=TOLERANCE)


@pytest.mark.parametrize("world", MODELS)
def test_where_panes_are_cut_does_not_matter(world: str, data: Path) -> None:
    """The cuts between panes do not change the judgement."""
    events = all_events(world, data)[:3_000]
    judgements = [assess(statistics_of(events, MODELS[world], pane_events=size)) for size in (1, 97, 3_000)]
    one, *others = [judgement.dimensions for judgement in judgements if judgement]
    for other in others:
        assert {name: other[name] for name in other if name != "diversity"} == {
            name: one[name] for name in one if name != "diversity"
        }
        assert other["diversity"] == pytest.approx(one["diversity"], abs=TOLERANCE)


def counted_diversity(events: Sequence[AnyBehavioralEvent]) -> float:
    """Return diversity, recounted from the events; fewer than twenty users lower it."""
    users: collections.Counter[object] = collections.Counter()
    categories: collections.Counter[object] = collections.Counter()
    tiers: collections.Counter[object] = collections.Counter()
    so_far: collections.Counter[object] = collections.Counter()
    for event in events:
        so_far[event.user_id] += isinstance(event, TransactionCreated)
        tiers[math.floor(math.log2(so_far[event.user_id])) + 1 if so_far[event.user_id] else 0] += 1
        if (kind := kind_of(event)) is not None:
            users[event.user_id] += 1
            categories[kind] += 1
    enough = min(len({event.user_id for event in events}) / 20, 1.0)
    parts = [enough * entropy(users), *(entropy(part) for part in (tiers, categories) if len(part) > 1)]
    return min(parts[0], sum(parts) / len(parts))


def kind_of(event: AnyBehavioralEvent) -> str | None:
    """Return the category of what counts; None for what does not."""
    if isinstance(event, TransactionCreated):
        return event.category
    if isinstance(event, GoalModified) and event.interaction_type in GOAL_OUTCOMES:
        return event.interaction_type
    is_answer = isinstance(event, RecommendationInteraction) and event.interaction_type in FEEDBACK_INTERACTIONS
    return event.interaction_type if is_answer else None


def entropy(counts: collections.Counter[object]) -> float:
    """Return Shannon's entropy over its maximum."""
    shares = [count / counts.total() for count in counts.values()]
    return -sum(share * math.log(share) for share in shares) / math.log(len(shares))


def test_every_model_of_the_sets_is_judged() -> None:
    """Every model that has events in the sets is judged."""
    assert set(MODELS.values()) == set(FOUR_MODELS) - {"segmentation"}  # it shares its events with spending
