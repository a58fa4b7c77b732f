"""Finds values far outside the usual range of their data set, by a robust z-score on their logarithms. Pure.

Money is heavy-tailed: honest large purchases lie dozens of deviations out on a linear scale, but not on a logarithmic one.
The deviation is the interquartile range over that of a standard normal, so outliers hardly move it. Anomalies that are
found are removed and the rest is judged again, so that even a fifth of wild values is found.
"""

from __future__ import annotations

from modelkit.statistics.sketches import BUCKETS_PER_DOUBLING, ZERO_BUCKET, Histogram, quantile_buckets

ROBUST_Z = 6.0
NORMAL_IQR = 1.349  # interquartile range of a standard normal
# Where most values are equal (a subscription), another price is an anomaly only beyond a factor of 64.
LEAST_DEVIATION_BUCKETS = 1.0 * BUCKETS_PER_DOUBLING
_MOST_ROUNDS = 10


def anomalies(values: Histogram) -> int:
    """Return how many values are anomalous. Zeros are not judged: they have no logarithm."""
    inside = usual_buckets(values)
    return sum(
        count for bucket, count in values.items() if bucket > ZERO_BUCKET and not inside[0] <= bucket <= inside[1]
    )


def usual_buckets(values: Histogram) -> tuple[float, float]:
    """Return the lowest and the highest bucket of usual values; the zero bucket if there are only zeros."""
    inside = {bucket: count for bucket, count in values.items() if bucket > ZERO_BUCKET}
    low, high = _reach(inside)
    for _ in range(_MOST_ROUNDS):
        kept = {bucket: count for bucket, count in inside.items() if low <= bucket <= high}
        if len(kept) == len(inside):
            break
        inside = kept
        low, high = _reach(inside)
    return low, high


def _reach(values: Histogram) -> tuple[float, float]:
    if not values:
        return ZERO_BUCKET, ZERO_BUCKET
    lower, median, upper = quantile_buckets(values, (0.25, 0.5, 0.75))
    deviation = max((upper - lower) / NORMAL_IQR, LEAST_DEVIATION_BUCKETS)
    return median - ROBUST_Z * deviation, median + ROBUST_Z * deviation
