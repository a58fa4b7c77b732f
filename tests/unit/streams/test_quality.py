"""Quality of data sets."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.statistics.sketches import DatasetStatistics, histogram, user_sketch
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import QualityDimension
from streams.quality.assessment import FLOORS, IMPLICIT_WEIGHT, WEIGHTS, assess, assess_counts, below_floor, score

RATIO = st.one_of(st.none(), st.floats(0, 1))
DIMENSIONS = st.fixed_dictionaries(dict.fromkeys(QualityDimension, RATIO))


def good(**changes: object) -> DatasetStatistics:
    """Return statistics of a hundred good events of thirty users."""
    counts = DatasetCounts(counted=100, relevant=100, fields_expected=400, fields_present=400)
    fields: dict[str, object] = {
        "counts": counts, "fresh": 100, "categories": {"a": 50, "b": 50}, "users": user_sketch(range(30)),
    }  # fmt: skip
    return DatasetStatistics(**{**fields, **changes})  # type: ignore[arg-type]


def counts_with(**changes: int) -> DatasetCounts:
    """Return the counters of a hundred events, with changes."""
    fields = {"counted": 100, "relevant": 100, "fields_expected": 400, "fields_present": 400}
    return DatasetCounts(**{**fields, **changes})


def test_sound_data_is_perfect() -> None:
    """Good data gets the full score."""
    assessment = assess(good())
    assert assessment is not None
    assert assessment.score == pytest.approx(1.0)
    assert assessment.below_floor == ()


def test_nothing_is_not_judged() -> None:
    """An empty data set has no quality."""
    assert assess(DatasetStatistics()) is None
    assert assess_counts(DatasetCounts()) is None


@pytest.mark.parametrize(
    ("statistics", "dimension", "value"),
    [
        (good(counts=counts_with(fields_present=360)), "completeness", 0.9),
        (good(filled={"merchant": 90}), "completeness", 0.98),
        (good(filled={"merchant": 49}), "completeness", 1.0),
        (good(counts=counts_with(invalid=25)), "validity", 0.8),
        (good(counts=counts_with(out_of_range=20)), "validity", 0.8),
        (good(counts=counts_with(inconsistent=30)), "consistency", 0.7),
        (good(fresh=40), "freshness", 0.4),
        (good(ages={"host": histogram([0.0] * 80 + [5e6] * 20)}), "freshness", 0.8),
        (good(users=user_sketch([7])), "diversity", 0.05),
        (good(categories={"a": 50}), "diversity", 1.0),
    ],
)
def test_each_dimension_reports_its_rate(statistics: DatasetStatistics, dimension: str, value: float) -> None:
    """Each dimension reports the rate of its own defect."""
    assessment = assess(statistics)
    assert assessment is not None
    assert assessment.dimensions[dimension] == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize(
    "statistics",
    [
        good(counts=counts_with(invalid=200)),
        good(counts=counts_with(fields_present=100)),
        good(counts=counts_with(inconsistent=80)),
        good(fresh=5),
        good(users=user_sketch([7])),
        DatasetStatistics(counts=DatasetCounts(invalid=50)),
    ],
)
def test_rubbish_in_one_dimension_is_enough(statistics: DatasetStatistics) -> None:
    """One bad dimension blocks the data set."""
    assessment = assess(statistics)
    assert assessment is not None
    assert assessment.score < 0.8 or assessment.below_floor


@given(DIMENSIONS)
def test_the_score_is_a_ratio_between_the_worst_and_the_best(dimensions: dict[QualityDimension, float | None]) -> None:
    """The score lies in 0..1, between the worst and the best dimension."""
    found = score(dimensions)
    applicable = [max(value, 0.01) for value in dimensions.values() if value is not None]
    assert 0 <= found <= 1
    if applicable:
        assert min(applicable) - 1e-9 <= found <= max(applicable) + 1e-9


@given(DIMENSIONS, st.sampled_from(QualityDimension))
def test_a_better_dimension_never_lowers_the_score(
    dimensions: dict[QualityDimension, float | None], name: QualityDimension
) -> None:
    """A better dimension never lowers the score."""
    value = dimensions[name]
    if value is not None:
        assert score({**dimensions, name: min(value + 0.1, 1.0)}) >= score(dimensions) - 1e-12


def test_weights_of_what_does_not_apply_are_shared_out() -> None:
    """Dimensions that do not apply pass their weight to the others."""
    assert score(dict.fromkeys(QualityDimension, None)) == 0
    assert score({QualityDimension.VALIDITY: 0.5, QualityDimension.DIVERSITY: None}) == pytest.approx(0.5)
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_floors_are_named() -> None:
    """Dimensions below their floors are named."""
    low = {name: floor / 2 for name, floor in FLOORS.items()}
    assert set(below_floor(low)) == {str(name) for name in QualityDimension}
    assert below_floor(dict.fromkeys(QualityDimension, None)) == ()


def test_the_parts_explain_a_judgement() -> None:
    """The parts hold the figures behind a judgement."""
    counts = counts_with(balance_broken=3, inconsistent=3, views=5, views_answered=1, page_views=2, page_seconds=70)
    values = {"amount_minor": histogram([10.0] * 97 + [1e9] * 3)}
    assessment = assess(good(counts=counts, tiers={1: 60, 2: 40}, values=values, heaviest={b"u": 100}))
    assert assessment is not None
    parts = assessment.parts
    assert parts["inconsistencies"] == {"balance_broken": 3}
    assert parts["implicit"]["unanswered"] == 4
    assert parts["implicit"]["weighted"] == pytest.approx(6 * IMPLICIT_WEIGHT)
    assert parts["tiers"] == {"1+": 60, "2+": 40}
    assert parts["largest_share"] == 1.0
    assert (assessment.anomalies, parts["values"]["amount_minor"]["anomalies"]) == (3, 3)
    msgspec.json.encode(parts)


def test_zero_amounts_alone_are_judged() -> None:
    """A data set of zero amounts is judged and has no anomalies."""
    assessment = assess(good(values={"amount_minor": histogram([0.0] * 100)}))
    assert assessment is not None
    assert assessment.anomalies == 0
