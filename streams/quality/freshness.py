"""Which events arrive later than is usual for their source. Pure.

An event's age is how far it lies behind the newest event of its source, so a replay of last year is judged by its own
clock. The allowance follows the source's median age in the same data set: events of a live host are late after a day,
those of phones that report once a day are not late after three. Nothing is fresh beyond the horizon.
"""

from __future__ import annotations

from modelkit.statistics.sketches import HORIZON_SECONDS, DatasetStatistics, Histogram, histogram, quantiles

ALWAYS_ALLOWED_SECONDS = 86_400  # models look at days and weeks: an afternoon's outage harms none of them
TIMES_THE_MEDIAN = 10.0


def allowance_seconds(ages: Histogram) -> float:
    """Return the age up to which an event of a source with these ages is fresh."""
    median = quantiles(ages, (0.5,))
    usual = TIMES_THE_MEDIAN * median[0] if median else 0.0
    return min(max(usual, ALWAYS_ALLOWED_SECONDS), HORIZON_SECONDS)


def late(ages: Histogram) -> int:
    """Return how many events of a source arrived later than is usual for it."""
    (last,) = histogram([allowance_seconds(ages)])
    return sum(count for bucket, count in ages.items() if bucket > last)


def freshness(statistics: DatasetStatistics) -> float | None:
    """Return the share of fresh events; judged by the horizon alone if ages are unknown."""
    relevant = statistics.counts.relevant
    if not relevant:
        return None
    if not statistics.ages:
        return statistics.fresh / relevant
    return 1.0 - sum(map(late, statistics.ages.values())) / relevant
