"""K-means in one space, how stable it is, and its export. Pure but for the seeds that are passed in.

The space: what grows with age becomes a monthly rate, and age itself does not enter (with lifetime sums 80 % of a whole
population ended in one segment within four months); then log(1 + x), centred on the median and
divided by the spread of the middle half, cut off at four such units, so that neither a big spender nor a rare column
makes a segment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import helper
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from modelkit.training.onnx_trees import model_of
from models.segmentation.features import SEGMENTATION_FEATURES

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AGE = SEGMENTATION_FEATURES.index("tenure_days")
GROWING = np.isin(
    SEGMENTATION_FEATURES,
    ["frequency", "monetary_sum", "feedback_given", "page_views", "products_bought", "goals_decided"],
)
MONTH_DAYS = 30.0
CLIP = 4.0
NORMAL_QUARTILES = 1.349  # quartiles of a normal distribution are this many standard deviations apart
CONSTANT = 1e-6
FEWEST_SEGMENTS, MOST_SEGMENTS = 3, 8
STABLE_JACCARD = 0.6
SMALLEST_SHARE = 0.02
BOOTSTRAPS = 20
BOOTSTRAP_ROWS = 2_000
COLD_STARTS = 4


class Space(NamedTuple):
    """Where distances are measured: per feature the median of log(1 + x) and one over its spread; 0 for what does not enter."""

    median: Float32Array
    inverse_spread: Float32Array


class Stability(NamedTuple):
    """How well resampled users give the same segments again: mean Jaccard of each segment, mean adjusted Rand index."""

    jaccard: FloatArray
    rand: float


class Choice(NamedTuple):
    """Centroids (k, d) of the number of segments that was chosen, and the smallest Jaccard of each number that was tried."""

    centroids: Float32Array
    tried: dict[int, float]


def space_of(rows: Float32Array) -> Space:
    """Return the space of rows (n, d). Where over half of the rows are equal, the standard deviation takes the quartiles' place."""
    logs = _logs(rows).astype(np.float64)
    lower, median, upper = np.quantile(logs, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(upper - lower > CONSTANT, (upper - lower) / NORMAL_QUARTILES, logs.std(axis=0))
    inverse = np.where(spread > CONSTANT, 1.0 / np.maximum(spread, CONSTANT), 0.0)
    inverse[AGE] = 0.0
    return Space(median.astype(np.float32), inverse.astype(np.float32))


def scaled(rows: Float32Array, space: Space) -> Float32Array:
    """Return rows (n, d) in the space."""
    centred = (_logs(rows) - space.median) * space.inverse_spread
    return np.asarray(np.clip(centred, np.float32(-CLIP), np.float32(CLIP)))


def _logs(rows: Float32Array) -> Float32Array:
    """Return log(1 + x) of rows (n, d), with rates in place of what grows with age; in single precision, as the graph does."""
    single = np.float32
    rate = single(MONTH_DAYS) / np.maximum(rows[:, AGE : AGE + 1], single(MONTH_DAYS))
    monthly = np.where(GROWING, rows * rate, rows)
    return np.asarray(np.log(np.maximum(monthly, single(0.0)) + single(1.0)), dtype=single)


def distances(points: Float32Array, centroids: Float32Array) -> Float32Array:
    """Return Euclidean distances (n, k) of points of the space."""
    return np.sqrt(np.sum((points[:, None, :] - centroids[None, :, :]) ** 2, axis=2, dtype=np.float32))


def fit_centroids(points: Float32Array, segments: int, *, seed: int, starts: int = COLD_STARTS) -> Float32Array:
    """Return centroids (segments, d) found from scratch, the best of some starts."""
    fitted = KMeans(segments, n_init=starts, random_state=seed).fit(points)
    return np.asarray(fitted.cluster_centers_, dtype=np.float32)


def continue_centroids(points: Float32Array, labels: IntArray) -> Float32Array | None:
    """Return centroids that start as the means of the members of ``labels``; labels with hardly any members are left out.

    None when fewer than three are left: two segments score high and tell people nothing.

    The champion's segments are the start, whatever its space was: labels changed for 1.4 % of users against 36.8 % for a
    start from scratch.
    """
    alive = [label for label, count in enumerate(np.bincount(labels)) if count >= SMALLEST_SHARE * len(labels)]
    if len(alive) < FEWEST_SEGMENTS:
        return None
    start = np.stack([points[labels == label].mean(axis=0) for label in alive])
    fitted = KMeans(len(start), init=start, n_init=1).fit(points)
    return np.asarray(fitted.cluster_centers_, dtype=np.float32)


def stability_of(points: Float32Array, labels: IntArray, *, segments: int, seed: int) -> Stability:
    """Return how well segments are found again from scratch on users drawn with replacement.

    Hennig (2007), "Cluster-wise assessment of cluster stability", with all points assigned to the new centroids. A
    segment counts the Jaccard of its best match.
    """
    jaccards, rands = [], []
    for number, drawn in enumerate(_resamples(len(points), seed)):
        centroids = fit_centroids(points[drawn], segments, seed=seed + number, starts=2)
        again = distances(points, centroids).argmin(axis=1)
        jaccards.append(overlaps(labels, again, shape=(segments, segments)).max(axis=1))
        rands.append(adjusted_rand_score(labels, again))
    return Stability(np.mean(jaccards, axis=0), float(np.mean(rands)))


def _resamples(count: int, seed: int) -> Iterator[IntArray]:
    generator = np.random.default_rng(seed)
    for _ in range(BOOTSTRAPS):
        yield generator.integers(0, count, min(count, BOOTSTRAP_ROWS))


def overlaps(ours: IntArray, theirs: IntArray, *, shape: tuple[int, int]) -> FloatArray:
    """Return the Jaccard of the members of each of our segments with each of theirs, of the given shape (ours, theirs)."""
    shared = np.zeros(shape)
    np.add.at(shared, (ours, theirs), 1.0)
    together = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    return np.asarray(shared / np.maximum(together, 1.0))


def choose_centroids(points: Float32Array, *, seed: int, progress: Callable[[int, int], None]) -> Choice:
    """Return the largest stable number of segments, found from scratch; where none is stable, the least unstable one."""
    numbers = range(FEWEST_SEGMENTS, MOST_SEGMENTS + 1)
    found: dict[int, Float32Array] = {}
    tried: dict[int, float] = {}
    for step, segments in enumerate(numbers):
        progress(step, len(numbers))
        found[segments] = fit_centroids(points, segments, seed=seed)
        labels = distances(points, found[segments]).argmin(axis=1)
        large = smallest_share(labels, segments) >= SMALLEST_SHARE
        stable = stability_of(points, labels, segments=segments, seed=seed)
        tried[segments] = float(stable.jaccard.min()) if large else 0.0
    chosen = max((k for k in numbers if tried[k] >= STABLE_JACCARD), default=max(numbers, key=lambda k: tried[k]))
    return Choice(found[chosen], tried)


def smallest_share(labels: IntArray, segments: int) -> float:
    """Return the share of users of the smallest segment."""
    return float(np.bincount(labels, minlength=segments).min() / max(labels.size, 1))


def silhouettes(points: Float32Array, labels: IntArray) -> FloatArray:
    """Return the silhouette coefficient of each user, (n,); 0 where everybody is in one segment. Rousseeuw (1987)."""
    if np.unique(labels).size in {1, len(labels)}:
        return np.zeros(len(points))
    return np.asarray(silhouette_samples(points, labels), dtype=np.float64)


def export_distances(space: Space, centroids: Float32Array) -> bytes:
    """Return a model from features (n, d) to distances (n, k): scaling and centroids in one graph."""
    nodes = [
        helper.make_node("Gather", ["features", "age"], ["days"], axis=1),
        helper.make_node("Max", ["days", "month"], ["months"]),
        helper.make_node("Div", ["month", "months"], ["rate"]),
        helper.make_node("Mul", ["features", "rate"], ["rates"]),
        helper.make_node("Where", ["growing", "rates", "features"], ["monthly"]),
        helper.make_node("Max", ["monthly", "zero"], ["positive"]),
        helper.make_node("Add", ["positive", "one"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["logs"]),
        helper.make_node("Sub", ["logs", "median"], ["centred"]),
        helper.make_node("Mul", ["centred", "inverse_spread"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["points"]),
        helper.make_node("Unsqueeze", ["points", "second_axis"], ["columns"]),  # (n, 1, d) against (1, k, d)
        helper.make_node("Sub", ["columns", "centroids"], ["differences"]),
        helper.make_node("ReduceL2", ["differences"], ["scores"], axes=[2], keepdims=0),
    ]
    single = np.float32
    constants: dict[str, Any] = {
        "age": np.array([AGE], dtype=np.int64), "month": single(MONTH_DAYS), "growing": GROWING[None, :],
        "zero": single(0), "one": single(1), "median": space.median[None, :], "inverse_spread": space.inverse_spread[None, :],
        "low": single(-CLIP), "high": single(CLIP), "second_axis": np.array([1], dtype=np.int64), "centroids": centroids[None, :, :],
    }  # fmt: skip
    model = model_of(nodes, features=centroids.shape[1], outputs=centroids.shape[0], constants=constants)
    return bytes(model.SerializeToString())
