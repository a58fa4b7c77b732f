"""The trivial forecasts that a spending model must beat: functions of the weekly series alone. Pure.

Each takes series of shape (n, weeks), oldest week first, in major units, and returns (n, :data:`FORECAST_STEPS`) weekly
amounts. ``FORECASTS`` is what trainers judge against and what version 0 serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from models.spending.features import EWMA_ALPHA, FORECAST_STEPS

FloatArray = npt.NDArray[np.float32]
Forecast = Callable[[FloatArray], FloatArray]


def zero(series: FloatArray) -> FloatArray:
    """Return nothing for every week."""
    return np.zeros((series.shape[0], FORECAST_STEPS), dtype=np.float32)


def last_4_weeks(series: FloatArray) -> FloatArray:
    """Return the last four weeks once more."""
    return series[:, -FORECAST_STEPS:].astype(np.float32)


def ewma_mean(series: FloatArray) -> FloatArray:
    """Return the exponentially weighted mean (weight :data:`EWMA_ALPHA` on the newest week, weights summing to 1)."""
    weights = (1.0 - EWMA_ALPHA) ** np.arange(series.shape[1] - 1, -1, -1)
    return _repeated(series @ (weights / weights.sum()))


def mean_26_weeks(series: FloatArray) -> FloatArray:
    """Return the mean of the last 26 weeks."""
    return _repeated(series[:, -26:].mean(axis=1))


def median_of_own_months(series: FloatArray) -> FloatArray:
    """Return a quarter of the median of the user's own sums of four weeks (blocks that end with the last week)."""
    weeks = series.shape[1] - series.shape[1] % 4
    blocks = series[:, -weeks:].reshape(series.shape[0], weeks // 4, 4)
    return _repeated(np.median(blocks.sum(axis=2), axis=1) / 4.0)


def _repeated(weekly: npt.NDArray[np.floating]) -> FloatArray:
    return np.repeat(np.asarray(weekly, dtype=np.float32)[:, None], FORECAST_STEPS, axis=1)


FORECASTS: Mapping[str, Forecast] = {
    "zero": zero,
    "last_4_weeks": last_4_weeks,
    "ewma": ewma_mean,
    "mean_26_weeks": mean_26_weeks,
    "median_of_own_months": median_of_own_months,
}
