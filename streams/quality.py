"""How good a data set is: five dimensions between 0 and 1, one score, and counts. Pure.

Score: weighted geometric mean, Q = product of max(s_i, 0.01)^(w_i), so that one bad dimension cannot be bought
off by the others. A dimension without its attribute (no categories to be diverse in, no event to be fresh) is not
applicable, and its weight is shared out among the others. Each dimension also has a floor of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import QualityDimension
from streams.sketches import DatasetStatistics, distinct, quantiles, share_at_most, size

WEIGHTS: dict[QualityDimension, float] = {
    QualityDimension.COMPLETENESS: 0.25,
    QualityDimension.VALIDITY: 0.25,
    QualityDimension.CONSISTENCY: 0.20,
    QualityDimension.FRESHNESS: 0.15,
    QualityDimension.DIVERSITY: 0.15,
}
# Below its floor a dimension blocks whatever the others say: half of the data broken, nearly all of it old, or
# one user (or bot) alone.
FLOORS: dict[QualityDimension, float] = {
    QualityDimension.COMPLETENESS: 0.5,
    QualityDimension.VALIDITY: 0.5,
    QualityDimension.CONSISTENCY: 0.5,
    QualityDimension.FRESHNESS: 0.25,
    QualityDimension.DIVERSITY: 0.1,
}
LOWEST_FACTOR = 0.01
USERS_FOR_FULL_DIVERSITY = 20  # fewer distinct users than this say little about the others
ROBUST_Z = 8.0  # amounts are heavy-tailed: below it honest large purchases would be blamed
NORMAL_IQR = 1.349  # interquartile range of a standard normal


class QualityAssessment(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement. ``dimensions`` holds None where one is not applicable; ``parts`` says what each was made of."""

    score: float
    dimensions: dict[str, float | None]
    below_floor: tuple[str, ...]
    anomalies: int
    duplicates: int
    missing: int
    parts: dict[str, Any]


def assess(statistics: DatasetStatistics) -> QualityAssessment | None:
    """Judge a data set by its merged statistics; None where there is nothing to judge."""
    counts = statistics.counts
    if counts.relevant + counts.invalid == 0:
        return None
    dimensions = {
        QualityDimension.COMPLETENESS: _ratio(counts.fields_present, counts.fields_expected),
        QualityDimension.VALIDITY: _ratio(counts.relevant, counts.relevant + counts.invalid),
        QualityDimension.CONSISTENCY: _ratio(counts.relevant - counts.inconsistent, counts.relevant),
        QualityDimension.FRESHNESS: _ratio(statistics.fresh, counts.relevant),
        QualityDimension.DIVERSITY: diversity(statistics),
    }
    return QualityAssessment(
        score=score(dimensions),
        dimensions={str(name): value for name, value in dimensions.items()},
        below_floor=below_floor(dimensions),
        anomalies=anomalies(statistics.values_minor),
        duplicates=counts.duplicates,
        missing=counts.missing,
        parts=_parts(statistics),
    )


def assess_counts(counts: DatasetCounts) -> float | None:
    """Return the score that counters alone allow: completeness, validity and consistency; None without data."""
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


def diversity(statistics: DatasetStatistics) -> float | None:
    """Return the mean of user diversity and category diversity; either alone where the other is not applicable.

    Users: distinct users over the number wanted (20, or as many as there are events). Categories: entropy of
    their shares over its maximum (Pielou's evenness); not applicable with one category.
    """
    parts = [part for part in (_user_diversity(statistics), evenness(statistics.categories)) if part is not None]
    if not statistics.users:
        return None
    return min(parts[0], sum(parts) / len(parts))


def evenness(categories: Mapping[str, int]) -> float | None:
    """Return Shannon's entropy of the shares over its maximum, in 0..1; None with fewer than two categories."""
    total = sum(categories.values())
    if len(categories) < 2:  # noqa: PLR2004 - the smallest number that can be uneven
        return None
    entropy = -sum(count / total * math.log(count / total) for count in categories.values() if count)
    return min(max(entropy / math.log(len(categories)), 0.0), 1.0)


def anomalies(values: bytes) -> int:
    """Return how many values lie more than :data:`ROBUST_Z` robust deviations from the median of their sketch."""
    found = quantiles(values, (0.25, 0.5, 0.75))
    if not found:
        return 0
    low, median, high = found
    reach = ROBUST_Z * (high - low) / NORMAL_IQR
    if reach <= 0:
        return 0
    outside = 1 - share_at_most(values, median + reach) + share_at_most(values, median - reach)
    return round(outside * size(values))


def _user_diversity(statistics: DatasetStatistics) -> float | None:
    wanted = min(USERS_FOR_FULL_DIVERSITY, statistics.counts.relevant)
    return min(distinct(statistics.users) / wanted, 1.0) if wanted else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _parts(statistics: DatasetStatistics) -> dict[str, Any]:
    ages = quantiles(statistics.ages_seconds, (0.5, 0.9))
    values = quantiles(statistics.values_minor, (0.25, 0.5, 0.75, 0.99))
    return {
        "counts": msgspec.to_builtins(statistics.counts),
        "fresh": statistics.fresh,
        "users": round(distinct(statistics.users)),
        "categories": statistics.categories,
        "age_seconds": dict(zip(("p50", "p90"), ages, strict=False)),
        "values_minor": dict(zip(("p25", "p50", "p75", "p99"), values, strict=False)),
    }
