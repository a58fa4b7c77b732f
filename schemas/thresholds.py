"""The rule for when a model's data set is large and good enough to train on: one row per model in ``thresholds``. Pure."""

from __future__ import annotations

import math

import msgspec

LEAST_RATIO = 0.5  # of the configured threshold, if no bound is configured
MOST_RATIO = 20
AGED_RATIO = 0.2  # of the configured threshold: what a data set at its maximum age must hold


class ThresholdRule(msgspec.Struct, frozen=True, kw_only=True):
    """The configured rule of a model, with the columns of the table ``thresholds``.

    Attributes:
        threshold: new data points that trigger a training.
        quality_gate: minimum quality score of the data set, 0..1.
        cool_down_seconds: pause after a crossing before the next one.
        adaptive: whether size, season, cost and drift adapt the threshold.
        least, most: bounds of the adapted threshold; None: half and twenty times ``threshold``.
        max_age_seconds: age from which a fifth of the threshold is enough; None: no such age.
        blackouts: weekly windows (UTC) without a crossing, such as "Mon-Fri 08:00-12:00".
        user_share: one user's maximum share of the threshold, or ``even_share`` times the even share if larger; at most half.
        reference_cost_seconds: usual duration of a training; None: that of the first ones.
    """

    threshold: int
    quality_gate: float = 0.8
    cool_down_seconds: int = 0
    adaptive: bool = False
    least: int | None = None
    most: int | None = None
    max_age_seconds: int | None = None
    blackouts: tuple[str, ...] = ()
    user_share: float = 0.02
    even_share: float = 3.0
    reference_cost_seconds: float | None = None

    def bounds(self) -> tuple[int, int]:
        """Return the bounds of the adapted threshold."""
        least = self.least or max(1, math.ceil(self.threshold * LEAST_RATIO))
        return least, max(least, self.most or self.threshold * MOST_RATIO)

    def aged_threshold(self) -> int:
        """Return how much a data set at its maximum age must hold."""
        return max(1, math.ceil(self.threshold * AGED_RATIO))
