"""What a spending forecast says about a user's next four weeks, and how it is judged. Pure numpy.

One predictive distribution: with probability ``1 - buy`` nothing is spent, else the total is log-logistic with median
``exp(location)`` and shape ``1 / spread``. Its quantile function is closed, so that the served graph can compute it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

STEPS = 4
LEVELS = np.round(np.arange(0.05, 0.951, 0.05), 2)
BUY_COLUMN = STEPS
QUANTILES_FROM = STEPS + 1
OUTPUTS = QUANTILES_FROM + LEVELS.size
MEDIAN = int(np.argmin(np.abs(LEVELS - 0.5)))


def quantiles(buy: FloatArray, location: FloatArray, spread: FloatArray) -> FloatArray:
    """Return the quantiles of the total at ``LEVELS``, shape (n, levels), for parameters of shape (n,)."""
    level = LEVELS[None, :]
    inside = (level - (1.0 - buy[:, None])) / buy[:, None]
    clipped = np.clip(inside, 1e-6, 1 - 1e-6)
    amounts = np.exp(location[:, None] + spread[:, None] * np.log(clipped / (1.0 - clipped)))
    return np.where(inside > 0.0, amounts, 0.0)


def crps(forecast: FloatArray, truth: FloatArray) -> FloatArray:
    """Return the continuous ranked probability score of each row, from quantiles at ``LEVELS``: twice the mean pinball loss.

    Gneiting and Raftery (2007), section 4.2. A point forecast scores its absolute error.
    """
    error = truth[:, None] - forecast
    return np.asarray(2.0 * np.mean(np.maximum(LEVELS * error, (LEVELS - 1.0) * error), axis=1))


def point_as_quantiles(total: FloatArray) -> FloatArray:
    """Return the distribution of a forecast that is only a number."""
    return np.repeat(np.asarray(total, dtype=np.float64)[:, None], LEVELS.size, axis=1)


def own_sums_as_quantiles(series: FloatArray, observed: FloatArray) -> FloatArray:
    """Return each user's own sums of four weeks, every window within the weeks that were observed, as a distribution.

    The best trivial forecast for the CRPS. ``series`` is (n, weeks), oldest first; ``observed`` (n,) weeks of history.
    """
    totals = np.cumsum(np.pad(series, ((0, 0), (1, 0))), axis=1)
    windows = totals[:, STEPS:] - totals[:, :-STEPS]
    newest_first = windows[:, ::-1]
    count = np.clip(np.floor(observed).astype(int) - STEPS + 1, 1, newest_first.shape[1])
    result = np.empty((series.shape[0], LEVELS.size))
    for wide in np.unique(count):
        rows = count == wide
        result[rows] = np.quantile(newest_first[rows, :wide], LEVELS, axis=1).T
    return result


def reports(scores: FloatArray, truth: FloatArray, before: FloatArray, *, cap: float) -> dict[str, float]:
    """Return the metrics that people read, of one forecast in the served layout (n, ``OUTPUTS``).

    ``truth`` and ``before`` are totals (n,) of the four weeks after and before the origin; ``cap`` limits both sides of the
    capped error, since five points carry most of the squared error. RMSE is of the mean, MAE of the median.
    """
    mean, median = scores[:, :STEPS].sum(axis=1), scores[:, QUANTILES_FROM + MEDIAN]
    return {
        "rmse": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "rmse_capped": float(np.sqrt(np.mean((np.minimum(mean, cap) - np.minimum(truth, cap)) ** 2))),
        "mae": float(np.mean(np.abs(median - truth))),
        "crps": float(np.mean(crps(scores[:, QUANTILES_FROM:], truth))),
        "bias": float(np.mean(mean - truth) / max(float(np.mean(truth)), 1e-9)),
        "directional_accuracy": directional_accuracy(mean, truth, before),
        "will_buy_brier": float(np.mean((scores[:, BUY_COLUMN] - (truth > 0.0)) ** 2)),
    }


def directional_accuracy(
    forecast: FloatArray, truth: FloatArray, before: FloatArray, *, dead_band: float = 0.05
) -> float:
    """Return the share of rows whose direction (up, down, or within the dead band of ``before``) was predicted."""
    return float(np.mean(_direction(forecast, before, dead_band) == _direction(truth, before, dead_band)))


def _direction(after: FloatArray, before: FloatArray, dead_band: float) -> npt.NDArray[np.int64]:
    change = after - before
    return (np.sign(change) * (np.abs(change) > dead_band * np.abs(before))).astype(np.int64)
