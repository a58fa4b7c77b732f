"""The rule by which a model's data set becomes large and good enough to train on: configured per model, kept in ``thresholds``. Pure."""

from __future__ import annotations

import math

import msgspec

LEAST_RATIO = 0.5  # of the configured threshold, where no bound is configured
MOST_RATIO = 20
AGED_RATIO = 0.2  # of the configured threshold: so much a data set of the greatest age must hold at least


class ThresholdRule(msgspec.Struct, frozen=True, kw_only=True):
    """What is configured for a model, column by column of the table ``thresholds``.

    Attributes:
        threshold: new data points that make the model train.
        quality_gate: least quality score of the data set, 0..1.
        cool_down_seconds: pause after a crossing before the next one.
        adaptive: whether size, season, cost and drift move the threshold.
        least, most: bounds of the moved threshold; None: half and twenty times ``threshold``.
        max_age_seconds: from this age on a fifth of the threshold is enough; None: no age.
        blackouts: weekly windows (UTC) without a crossing, such as "Mon-Fri 08:00-12:00".
        user_share: one user's part of the threshold, or ``even_share`` times the even share where that is more, at most half.
        reference_cost_seconds: what a training usually costs; None: as the first ones did.
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
        """Return the least and the greatest threshold that adapting may lead to."""
        least = self.least or max(1, math.ceil(self.threshold * LEAST_RATIO))
        return least, max(least, self.most or self.threshold * MOST_RATIO)

    def aged_threshold(self) -> int:
        """Return how much a data set of the greatest age must hold."""
        return max(1, math.ceil(self.threshold * AGED_RATIO))
