"""What a pane knows about one model's data set, as a value that merges: counters, categories and sketches. Pure.

Merging is associative and commutative in every counter; sketches estimate the same, within their error. Sketches
merge but cannot be subtracted, which is why panes are kept apart and "since the last training" is a sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np
from datasketches import hll_sketch, hll_union, kll_floats_sketch, tgt_hll_type

from schemas.messages.progress import DatasetCounts

HLL_LOG_BUCKETS = 11  # 2,048 buckets: 2.3 % standard error in at most 1 KiB
KLL_SIZE = 128  # 2 % rank error in about 2 KiB
MOST_CATEGORIES = 200  # beyond, the rarest are added up: a category is a text that any producer may choose
OTHER_CATEGORIES = "(other)"
MOST_HEAVY_USERS = 512  # counters: of n counted events a user is understated by at most n / 513
_COUNT_FIELDS = tuple(field for field in DatasetCounts.__struct_fields__)


class DatasetStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Statistics of one data set over some panes.

    ``fresh`` are the relevant events that were not older than the freshness horizon behind the stream's
    watermark. ``heaviest`` says how many counted events each user gave (16 bytes of the user id), see
    :func:`bounded_heaviest`. ``users`` (HLL), ``ages_seconds`` and ``values_minor`` (KLL) are serialised sketches, empty without data.
    """

    counts: DatasetCounts = DatasetCounts()
    fresh: int = 0
    categories: dict[str, int] = {}
    heaviest: dict[bytes, int] = {}
    users: bytes = b""
    ages_seconds: bytes = b""
    values_minor: bytes = b""


def merged(one: DatasetStatistics, other: DatasetStatistics) -> DatasetStatistics:
    """Return the statistics of both together."""
    return DatasetStatistics(
        counts=merged_counts(one.counts, other.counts),
        fresh=one.fresh + other.fresh,
        categories=bounded_categories(Counter(one.categories) + Counter(other.categories)),
        heaviest=bounded_heaviest(Counter(one.heaviest) + Counter(other.heaviest)),
        users=_merged_users(one.users, other.users),
        ages_seconds=_merged_quantiles(one.ages_seconds, other.ages_seconds),
        values_minor=_merged_quantiles(one.values_minor, other.values_minor),
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


def user_sketch(users: Collection[str]) -> bytes:
    """Return an HLL of distinct ``users``."""
    if not users:
        return b""
    sketch = hll_sketch(HLL_LOG_BUCKETS, tgt_hll_type.HLL_4)
    for user in users:
        sketch.update(user)
    return bytes(sketch.serialize_compact())


def quantile_sketch(values: Sequence[float]) -> bytes:
    """Return a KLL of ``values``."""
    if not values:
        return b""
    sketch = kll_floats_sketch(KLL_SIZE)
    sketch.update(np.asarray(values, dtype=np.float32))
    return bytes(sketch.serialize())


def distinct(users: bytes) -> float:
    """Return the estimated number of distinct users in an HLL."""
    return float(hll_sketch.deserialize(users).get_estimate()) if users else 0.0


def quantiles(sketch: bytes, ranks: Sequence[float]) -> list[float]:
    """Return the values at ``ranks`` (0..1) of a KLL; none without data."""
    return (
        [float(value) for value in kll_floats_sketch.deserialize(sketch).get_quantiles(list(ranks))] if sketch else []
    )


def share_at_most(sketch: bytes, value: float) -> float:
    """Return the share of values that are at most ``value``; 0 without data."""
    return float(kll_floats_sketch.deserialize(sketch).get_rank(value, True)) if sketch else 0.0  # noqa: FBT003 - inclusive


def size(sketch: bytes) -> int:
    """Return how many values a KLL has seen."""
    return int(kll_floats_sketch.deserialize(sketch).n) if sketch else 0


def _merged_users(one: bytes, other: bytes) -> bytes:
    if not one or not other:
        return one or other
    union = hll_union(HLL_LOG_BUCKETS)
    for part in (one, other):
        union.update(hll_sketch.deserialize(part))
    return bytes(union.get_result(tgt_hll_type.HLL_4).serialize_compact())


def _merged_quantiles(one: bytes, other: bytes) -> bytes:
    if not one or not other:
        return one or other
    sketch = kll_floats_sketch.deserialize(one)
    sketch.merge(kll_floats_sketch.deserialize(other))
    return bytes(sketch.serialize())
