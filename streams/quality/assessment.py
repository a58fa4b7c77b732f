"""How good a data set is: five dimensions between 0 and 1, one score, and counts. Pure.

The score is a weighted geometric mean, Q = product of max(s_i, 0.01)^(w_i), so good dimensions cannot make up for a
bad one. A dimension without data (no categories, no events) does not apply, and its weight is shared among the
others. Each dimension also has its own floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from modelkit.statistics.consistency import CONTRADICTIONS
from modelkit.statistics.sketches import DatasetStatistics, Histogram, bucket_value, distinct, quantiles, size
from modelkit.statistics.transactions import expected_and_filled
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import QualityDimension
from streams.quality.anomalies import anomalies, usual_buckets
from streams.quality.diversity import diversity, largest_share, user_evenness
from streams.quality.freshness import allowance_seconds, freshness, late

WEIGHTS: dict[QualityDimension, float] = {
    QualityDimension.COMPLETENESS: 0.25,
    QualityDimension.VALIDITY: 0.25,
    QualityDimension.CONSISTENCY: 0.20,
    QualityDimension.FRESHNESS: 0.15,
    QualityDimension.DIVERSITY: 0.15,
}
# A dimension below its floor blocks training, whatever the others are: half of the data is broken, nearly all of it
# is old, or one user (or bot) gave it all.
FLOORS: dict[QualityDimension, float] = {
    QualityDimension.COMPLETENESS: 0.5,
    QualityDimension.VALIDITY: 0.5,
    QualityDimension.CONSISTENCY: 0.5,
    QualityDimension.FRESHNESS: 0.25,
    QualityDimension.DIVERSITY: 0.1,
}
LOWEST_FACTOR = 0.01
# Twenty unanswered views say about as much as one answer. Shown for information only: they never count as answers.
IMPLICIT_WEIGHT = 0.05


class QualityAssessment(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement. A dimension that does not apply is None; ``parts`` holds the figures behind each dimension."""

    score: float
    dimensions: dict[str, float | None]
    below_floor: tuple[str, ...]
    anomalies: int
    duplicates: int
    missing: int
    parts: dict[str, Any]


def assess(statistics: DatasetStatistics) -> QualityAssessment | None:
    """Judge a data set by its merged statistics; None if it is empty."""
    counts = statistics.counts
    if counts.relevant + counts.invalid == 0:
        return None
    expected, missing = _fields(statistics)
    dimensions = {
        QualityDimension.COMPLETENESS: _ratio(expected - missing, expected),
        QualityDimension.VALIDITY: _ratio(counts.relevant - counts.out_of_range, counts.relevant + counts.invalid),
        QualityDimension.CONSISTENCY: _ratio(counts.relevant - counts.inconsistent, counts.relevant),
        QualityDimension.FRESHNESS: freshness(statistics),
        QualityDimension.DIVERSITY: diversity(statistics),
    }
    return QualityAssessment(
        score=score(dimensions),
        dimensions={str(name): value for name, value in dimensions.items()},
        below_floor=below_floor(dimensions),
        anomalies=sum(map(anomalies, statistics.values.values())),
        duplicates=counts.duplicates,
        missing=missing,
        parts=_parts(statistics),
    )


def assess_counts(counts: DatasetCounts) -> float | None:
    """Return the score of completeness, validity and consistency, which counters alone give; None without data."""
    assessment = assess(DatasetStatistics(counts=counts, fresh=counts.relevant))
    return assessment.score if assessment else None


def score(dimensions: Mapping[QualityDimension, float | None]) -> float:
    """Return the weighted geometric mean of the applicable dimensions; 0 when none is."""
    applicable = {name: value for name, value in dimensions.items() if value is not None}
    total = sum(WEIGHTS[name] for name in applicable)
    if not applicable:
        return 0.0
    logarithm = sum(WEIGHTS[name] / total * math.log(max(value, LOWEST_FACTOR)) for name, value in applicable.items())
    return min(math.exp(logarithm), 1.0)


def below_floor(dimensions: Mapping[QualityDimension, float | None]) -> tuple[str, ...]:
    """Return the applicable dimensions that lie below their floors."""
    return tuple(str(name) for name, value in dimensions.items() if value is not None and value < FLOORS[name])


def implicit_feedback(counts: DatasetCounts) -> dict[str, float]:
    """Return what users did without answering, and how many answers that is worth by its weight.

    A view may be answered in a later epoch. Views that the user state has forgotten stay unanswered.
    """
    unanswered = max(counts.views - counts.views_answered, 0)
    return {
        "views": counts.views,
        "unanswered": unanswered,
        "page_views": counts.page_views,
        "page_seconds": counts.page_seconds,
        "weight": IMPLICIT_WEIGHT,
        "weighted": IMPLICIT_WEIGHT * (unanswered + counts.page_views),
    }


def _fields(statistics: DatasetStatistics) -> tuple[int, int]:
    """Return how many fields are expected, including the usual optional ones, and how many of them are missing."""
    counts = statistics.counts
    expected, filled = expected_and_filled(statistics.filled, counts.relevant)
    return counts.fields_expected + expected, counts.fields_expected - counts.fields_present + expected - filled


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _parts(statistics: DatasetStatistics) -> dict[str, Any]:
    counts = statistics.counts
    return {
        "counts": msgspec.to_builtins(counts),
        "inconsistencies": {name: getattr(counts, name) for name in CONTRADICTIONS if getattr(counts, name)},
        "fields": statistics.filled,
        "fresh": statistics.fresh,
        "sources": {source: _source(ages) for source, ages in statistics.ages.items()},
        "users": round(distinct(statistics.users)),
        "users_evenness": user_evenness(statistics),
        "largest_share": largest_share(statistics),
        "categories": statistics.categories,
        "tiers": {f"{2**tier >> 1}+": count for tier, count in sorted(statistics.tiers.items())},
        "values": {name: _values(values) for name, values in statistics.values.items()},
        "implicit": implicit_feedback(counts),
    }


def _source(ages: Histogram) -> dict[str, float]:
    p50, p90 = quantiles(ages, (0.5, 0.9))
    allowed = allowance_seconds(ages)
    return {"events": size(ages), "late": late(ages), "allowed_seconds": allowed, "p50": p50, "p90": p90}


def _values(values: Histogram) -> dict[str, float]:
    found = dict(zip(("p25", "p50", "p75", "p99"), quantiles(values, (0.25, 0.5, 0.75, 0.99)), strict=True))
    low, high = map(bucket_value, map(int, usual_buckets(values)))
    return {**found, "lowest_usual": low, "highest_usual": high, "count": size(values), "anomalies": anomalies(values)}
