"""What a pane knows about one model's data set, as a value that merges: counters, categories and sketches. Pure.

Merging is associative and commutative in every counter and histogram; the sketch of users and the heaviest users
estimate the same, within their error. Sketches merge but cannot be subtracted, which is why panes are kept apart and
"since the last training" is a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from datasketches import hll_sketch, hll_union, tgt_hll_type

from schemas.messages.progress import DatasetCounts

HLL_LOG_BUCKETS = 11  # 2,048 buckets: 2.3 % standard error in at most 1 KiB
BUCKETS_PER_DOUBLING = 8  # a value is known within 4.4 %, and how many there are exactly, however panes are merged
_SMALLEST = 2.0**-20  # a microsecond; what is less is nought
HORIZON_SECONDS = 30 * 86_400  # the window over which the host computes its behavioural features
ZERO_BUCKET = -20 * BUCKETS_PER_DOUBLING
MOST_CATEGORIES = 200  # beyond, the rarest are added up: a category is a text that any producer may choose
OTHER_CATEGORIES = "(other)"
MOST_SOURCES = 64  # a source is such a text too
OTHER_SOURCES = "(other)"
MOST_HEAVY_USERS = (
    1_024  # counters: of n counted events a user is understated by at most n / 1,025, a thousandth of an epoch
)
_LOW_BITS = (1 << 63) - 1  # what an HLL takes; the other half of a UUID adds nothing to tell users apart

Histogram = dict[int, int]
"""How many values fell into each bucket; a bucket is an eighth of a doubling."""
Key = TypeVar("Key", str, int, bytes)

_COUNT_FIELDS = tuple(field for field in DatasetCounts.__struct_fields__)


class DatasetStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Statistics of one data set over some panes. Everything merges exactly but ``users`` and ``heaviest``.

    Attributes:
        fresh: relevant events not older than the freshness horizon behind the watermark of their source.
        categories: relevant events by category, bounded.
        tiers: relevant events by behavioural tier: the power of two of their user's transactions.
        filled: how many transactions have each optional field.
        heaviest: how many counted events each user gave, see :func:`bounded_heaviest`.
        users: a serialised HLL of distinct users, empty without data.
        ages: how far events lay behind the watermark of their source (seconds), by source.
        values: what is searched for anomalies, by name.
    """

    counts: DatasetCounts = DatasetCounts()
    fresh: int = 0
    categories: dict[str, int] = {}
    tiers: dict[int, int] = {}
    filled: dict[str, int] = {}
    heaviest: dict[bytes, int] = {}
    users: bytes = b""
    ages: dict[str, Histogram] = {}
    values: dict[str, Histogram] = {}

    @property
    def amounts(self) -> Histogram:
        """The money in the set: what was paid, or what goals want; empty where there is none."""
        return self.values.get("amount_minor") or self.values.get("target_minor") or {}


def merged(one: DatasetStatistics, other: DatasetStatistics) -> DatasetStatistics:
    """Return the statistics of both together."""
    return DatasetStatistics(
        counts=merged_counts(one.counts, other.counts),
        fresh=one.fresh + other.fresh,
        categories=bounded_categories(_sum(one.categories, other.categories)),
        tiers=_sum(one.tiers, other.tiers),
        filled=_sum(one.filled, other.filled),
        heaviest=bounded_heaviest(_sum(one.heaviest, other.heaviest)),
        users=_merged_users(one.users, other.users),
        ages=bounded_sources(_merged_histograms(one.ages, other.ages)),
        values=_merged_histograms(one.values, other.values),
    )


def merged_counts(one: DatasetCounts, other: DatasetCounts) -> DatasetCounts:
    """Return the sums of all counters."""
    return DatasetCounts(**{name: getattr(one, name) + getattr(other, name) for name in _COUNT_FIELDS})


def bounded_categories(categories: Mapping[str, int]) -> dict[str, int]:
    """Return the commonest categories, the rest added up under one name."""
    if len(categories) <= MOST_CATEGORIES:
        return dict(categories)
    ordered = sorted(categories.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ordered[: MOST_CATEGORIES - 1])
    kept[OTHER_CATEGORIES] = kept.get(OTHER_CATEGORIES, 0) + sum(count for _, count in ordered[MOST_CATEGORIES - 1 :])
    return kept


def bounded_sources(ages: dict[str, Histogram]) -> dict[str, Histogram]:
    """Return the ages of the busiest sources, the rest added up under one name."""
    if len(ages) <= MOST_SOURCES:
        return ages
    ordered = sorted(ages, key=lambda source: (-size(ages[source]), source))
    kept = {source: ages[source] for source in ordered[: MOST_SOURCES - 1]}
    for source in ordered[MOST_SOURCES - 1 :]:
        kept[OTHER_SOURCES] = _sum(kept.get(OTHER_SOURCES, {}), ages[source])
    return kept


def bounded_heaviest(counts: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return at most :data:`MOST_HEAVY_USERS` counters, exact while there are no more users than that.

    Beyond, the largest counter that has no place is taken off all (Agarwal and others, "Mergeable summaries", 2012):
    of n events in all, however merged, a count is too low by at most n / (counters + 1), and never too high.
    """
    if len(counts) <= MOST_HEAVY_USERS:
        return dict(counts)
    taken_off = sorted(counts.values(), reverse=True)[MOST_HEAVY_USERS]
    return {user: count - taken_off for user, count in counts.items() if count > taken_off}


def excess(heaviest: Mapping[bytes, int], cap: int) -> int:
    """Return how many counted events lie beyond ``cap`` of their user, over all users; never overstated."""
    return sum(count - cap for count in heaviest.values() if count > cap)


def user_sketch(users: Iterable[int]) -> bytes:
    """Return an HLL of distinct ``users``, given as the integers of their ids."""
    sketch = hll_sketch(HLL_LOG_BUCKETS, tgt_hll_type.HLL_4)
    for user in users:
        sketch.update(user & _LOW_BITS)
    return b"" if sketch.is_empty() else bytes(sketch.serialize_compact())


def histogram(values: Sequence[float]) -> Histogram:
    """Return the buckets of ``values``, of which none is negative."""
    if not any(values):  # what comes in order has no age
        return {ZERO_BUCKET: len(values)} if values else {}
    logarithms = np.log2(np.maximum(np.asarray(values, dtype=np.float64), _SMALLEST))
    buckets, counts = np.unique(np.floor(logarithms * BUCKETS_PER_DOUBLING).astype(np.int64), return_counts=True)
    return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


def bucket_value(bucket: int) -> float:
    """Return the (geometric) middle of a bucket; 0 for the one of nought."""
    return 0.0 if bucket <= ZERO_BUCKET else 2.0 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING)


def distinct(users: bytes) -> float:
    """Return the estimated number of distinct users in an HLL."""
    return float(hll_sketch.deserialize(users).get_estimate()) if users else 0.0


def quantiles(values: Histogram, ranks: Sequence[float]) -> list[float]:
    """Return the values at ``ranks`` (0..1), within half a bucket (4.4 %); none without data."""
    return [bucket_value(bucket) for bucket in quantile_buckets(values, ranks)]


def quantile_buckets(values: Histogram, ranks: Sequence[float]) -> list[int]:
    """Return the buckets in which the values at ``ranks`` lie; none without data."""
    if not values:
        return []
    buckets = sorted(values)
    reached = np.cumsum([values[bucket] for bucket in buckets])
    places = np.searchsorted(reached, np.asarray(ranks) * reached[-1])
    return [buckets[min(int(place), len(buckets) - 1)] for place in places]


def size(values: Histogram) -> int:
    """Return how many values a histogram has seen."""
    return sum(values.values())


def _merged_users(one: bytes, other: bytes) -> bytes:
    if not one or not other:
        return one or other
    union = hll_union(HLL_LOG_BUCKETS)
    for part in (one, other):
        union.update(hll_sketch.deserialize(part))
    return bytes(union.get_result(tgt_hll_type.HLL_4).serialize_compact())


def _merged_histograms(one: dict[str, Histogram], other: dict[str, Histogram]) -> dict[str, Histogram]:
    if not one or not other:
        return one or other
    return {name: _sum(one.get(name, {}), other.get(name, {})) for name in one | other}


def _sum(one: dict[Key, int], other: dict[Key, int]) -> dict[Key, int]:
    if not one or not other:
        return one or other
    total = one.copy()
    for key, count in other.items():
        total[key] = total.get(key, 0) + count
    return total
