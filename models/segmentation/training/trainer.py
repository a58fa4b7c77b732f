"""Candidates and evidence for segmentation: the silhouette of users whom no fit has seen, and how much changes for them.

The headline is the mean silhouette coefficient in one neutral space, that of the training rows, for candidate, champion
and quantile bands alike; one row a user, so that the intervals draw users. It is conditional on the users that are
compared: the coefficient of one depends on all. At the same silhouette a new version only moves users about, so the gain
over the champion has to be certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from modelkit.interface import Runtime
from modelkit.manifest import PROFILES
from modelkit.statistics.stability import NOTABLE_PSI, stability_index
from modelkit.training.interface import Candidate, Champion, FitContext, NotEnoughHistoryError, Snapshot
from modelkit.training.splits import clusters_of
from modelkit.training.validation import CANDIDATE, CHAMPION, Check, Evidence
from models.segmentation.features import SEGMENTATION_FEATURES
from models.segmentation.gate import GATE, SILHOUETTE_FLOOR
from models.segmentation.runtime import SEGMENT_NAMES, SegmentationRuntime, quantile_bands, rfm_bands
from models.segmentation.training.clustering import (
    MOST_SEGMENTS,
    SMALLEST_SHARE,
    Space,
    choose_centroids,
    continue_centroids,
    distances,
    export_distances,
    scaled,
    silhouettes,
    smallest_share,
    space_of,
    stability_of,
)
from models.segmentation.training.examples import (
    HOLDOUT,
    TRAIN,
    VALIDATION,
    SegmentationExamples,
    segmentation_examples,
)
from models.segmentation.training.profiles import Known, profiles_of
from schemas.vocabulary import ArtifactKind

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BANDS = "rfm_quantile_bands"
COMPARED_USERS = 2_000  # silhouettes take the distances of all pairs
GOLDEN_ROWS = 16
NEXT_ID = "next_segment_id"
SILHOUETTE_MARGIN = 0.02
STABLE_RAND = 0.6
MOST_CHURN = 0.15
SMALLEST_COMPARED = 1e-4  # a segment without users counts as this share
COLLAPSED_BY_CHANCE = 0.05


class Fit(NamedTuple):
    """A space, centroids (k, d) in it, and the smallest Jaccard of each number of segments that was tried."""

    space: Space
    centroids: Float32Array
    tried: Mapping[str, float]

    def labels(self, rows: Float32Array) -> IntArray:
        """Return the nearest centroid of raw rows, (n,)."""
        return np.asarray(distances(scaled(rows, self.space), self.centroids).argmin(axis=1), dtype=np.int64)


class SegmentationTrainer:
    """The segmentation trainer."""

    model_type = "segmentation"
    policy = GATE.policy

    def prepare(self, snapshot: Snapshot, *, seed: int) -> SegmentationExamples:
        """Return users with enough history at three moments.

        Raises:
            NotEnoughHistoryError: when there are too few of them.
        """
        return segmentation_examples(snapshot, seed=seed)

    def samples(self, examples: SegmentationExamples) -> int:
        """Return the number of rows."""
        return int(examples.users.size)

    def fit(self, examples: SegmentationExamples, context: FitContext) -> Sequence[Candidate]:
        """Return K-means from scratch and, where the champion is learned, continued from its segments.

        Raises:
            NotEnoughHistoryError: when hardly any users differ.
        """
        rows = examples.of(TRAIN).features
        space = space_of(rows)
        points = scaled(rows, space)
        different = len(np.unique(points, axis=0))
        if different < 2 * MOST_SEGMENTS:
            raise NotEnoughHistoryError(f"not enough history (only {different} users differ from each other)")
        known = known_segments(context.champion, rows)
        choice = choose_centroids(
            points,
            seed=context.seed,
            progress=lambda step, steps: context.progress("choosing_segments", step, steps, None),
        )
        fits = {"k_means_from_scratch": choice.centroids}
        continued = continue_centroids(points, known.labels) if known else None
        if continued is not None:
            fits["k_means_continued"] = continued
        tried = {str(segments): round(jaccard, 4) for segments, jaccard in choice.tried.items()}
        return [
            _candidate(name, Fit(space, centroids, tried), examples=examples, known=known, seed=context.seed)
            for name, centroids in fits.items()
        ]

    def evaluate(
        self, examples: SegmentationExamples, *, candidate: Runtime, champion: Runtime | None, seed: int
    ) -> Evidence:
        """Return the silhouette of each user on the holdout, and the checks of stability."""
        train = examples.of(TRAIN).features
        holdout = examples.of(HOLDOUT).drawn(COMPARED_USERS, seed=seed)
        space = space_of(train)
        labels = {
            CANDIDATE: labels_of(candidate, holdout.features),
            BANDS: rfm_bands(holdout.features, quantile_bands(train)).argmin(axis=1),
        }
        if champion is not None:
            labels[CHAMPION] = labels_of(champion, holdout.features)
        points = scaled(holdout.features, space)
        rows = {name: silhouettes(points, given) for name, given in labels.items()}
        collapsed = champion is not None and _has_collapsed(champion, labels[CHAMPION])
        compared = {name: given for name, given in rows.items() if not (name == CHAMPION and collapsed)}
        checks = [
            *_champion_checks(rows, has_collapsed=collapsed),
            _size_check(labels[CANDIDATE], _segments(candidate)),
            _stability_check(candidate, train, scaled(train, space), seed=seed),
            *_churn_checks(candidate, champion, labels),
        ]
        return Evidence(
            metric=GATE.metric.name, higher_is_better=GATE.metric.higher_is_better, clusters=clusters_of(holdout.users), rows=compared, baselines=(BANDS,),
            floor=SILHOUETTE_FLOOR, checks=checks, reports=_reports(rows, labels, candidate=candidate, champion=champion),
        )  # fmt: skip


def labels_of(runtime: Runtime, rows: Float32Array) -> IntArray:
    """Return the nearest segment of each row, as the number of the column, (n,)."""
    return np.asarray(runtime.scores(rows).argmin(axis=1), dtype=np.int64)


def known_segments(champion: Champion | None, rows: Float32Array) -> Known | None:
    """Return the segments of a learned champion on ``rows``; None before the first one."""
    if champion is None or not isinstance(champion.runtime, SegmentationRuntime):
        return None
    runtime = champion.runtime
    if runtime.manifest.kind == ArtifactKind.BASELINE:
        return None
    highest = max(profile.segment_id for profile in runtime.profiles) + 1
    next_id = max(int(runtime.manifest.parameters.get(NEXT_ID, 0)), highest, len(SEGMENT_NAMES))
    return Known(runtime.profiles, labels_of(runtime, rows), next_id)


def _candidate(
    name: str, fit: Fit, *, examples: SegmentationExamples, known: Known | None, seed: int
) -> Candidate:  # fmt: skip
    rows = examples.of(TRAIN).features
    points = scaled(rows, fit.space)
    profiles = profiles_of(rows, points, fit.labels(rows), segments=len(fit.centroids), known=known)
    validation = examples.of(VALIDATION).drawn(COMPARED_USERS, seed=seed)
    golden = validation.features[:: max(1, len(validation.features) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    next_id = max([*(profile.segment_id + 1 for profile in profiles), known.next_id if known else len(SEGMENT_NAMES)])
    return Candidate(
        name=name, model=export_distances(fit.space, fit.centroids), feature_names=SEGMENTATION_FEATURES, golden_inputs=golden,
        expected=distances(scaled(golden, fit.space), fit.centroids),
        validation_score=_validation_score(fit, points, validation.features, seed=seed),
        parameters={"family": name, "segments": len(fit.centroids), NEXT_ID: next_id, "smallest_jaccard": dict(fit.tried)},
        files={PROFILES: msgspec.json.encode(profiles)},
    )  # fmt: skip


def _validation_score(fit: Fit, points: Float32Array, rows: Float32Array, *, seed: int) -> float:
    """Return the silhouette on the validation rows, less one for each gate of stability that would fail: those come last."""
    later, segments = fit.labels(rows), len(fit.centroids)
    stable = stability_of(points, distances(points, fit.centroids).argmin(axis=1), segments=segments, seed=seed)
    failed = (smallest_share(later, segments) < SMALLEST_SHARE) + (stable.rand < STABLE_RAND)
    return float(np.mean(silhouettes(scaled(rows, fit.space), later))) - failed


def _segments(runtime: Runtime) -> list[Any]:
    return runtime.profiles if isinstance(runtime, SegmentationRuntime) else []


def _has_collapsed(champion: Runtime, labels: IntArray) -> bool:
    """Say whether a learned champion surely fails the gate on sizes today: so few users in a segment are no accident.

    With nearly everybody in one segment the silhouette is high and says nothing: .50 for 98 % in one of five segments.
    """
    if champion.manifest.kind == ArtifactKind.BASELINE:
        return False
    fewest = int(np.bincount(labels, minlength=len(_segments(champion))).min())
    return bool(binom.cdf(fewest, labels.size, SMALLEST_SHARE) < COLLAPSED_BY_CHANCE)


def _champion_checks(rows: Mapping[str, FloatArray], *, has_collapsed: bool) -> list[Check]:
    if CHAMPION not in rows:
        return []
    if has_collapsed:
        sentence = f"the champion is no rival any more: its smallest segment has surely under {SMALLEST_SHARE:.0%} of the users"
        return [Check(stage="champion", name="champion_collapsed", passed=True, sentence=sentence)]
    ours, theirs = float(np.mean(rows[CANDIDATE])), float(np.mean(rows[CHAMPION]))
    return [Check(
        stage="champion", name="silhouette_near_champion", passed=ours >= theirs - SILHOUETTE_MARGIN,
        sentence=f"silhouette {ours:.4f} on the holdout, at least {theirs - SILHOUETTE_MARGIN:.4f} is asked",
    )]  # fmt: skip


def _size_check(labels: IntArray, segments: Sequence[Any]) -> Check:
    smallest = smallest_share(labels, len(segments))
    return Check(
        stage="stability", name="smallest_segment", passed=smallest >= SMALLEST_SHARE,
        sentence=f"the smallest of {len(segments)} segments has {smallest:.1%} of the users, at least {SMALLEST_SHARE:.0%} is asked",
        numbers={"share": smallest, "segments": len(segments)},
    )  # fmt: skip


def _stability_check(candidate: Runtime, train: Float32Array, points: Float32Array, *, seed: int) -> Check:
    stable = stability_of(points, labels_of(candidate, train), segments=len(_segments(candidate)), seed=seed)
    return Check(
        stage="stability", name="found_again", passed=stable.rand >= STABLE_RAND,
        sentence=f"resampled users give the same segments again with an adjusted Rand index of {stable.rand:.2f}, at least {STABLE_RAND} is asked",
        numbers={"rand": stable.rand, "smallest_jaccard": float(stable.jaccard.min())},
    )  # fmt: skip


def _churn_checks(candidate: Runtime, champion: Runtime | None, labels: Mapping[str, IntArray]) -> list[Check]:
    """Return whether too many users would change their segment; the bands of version 0 are no segments."""
    if champion is None or champion.manifest.kind == ArtifactKind.BASELINE:
        return []
    churn = float(np.mean(_ids(candidate, labels[CANDIDATE]) != _ids(champion, labels[CHAMPION])))
    drift = population_shift([profile.share for profile in _segments(champion)], labels[CHAMPION])
    return [Check(
        stage="stability", name="matched_churn", passed=churn <= MOST_CHURN or drift > NOTABLE_PSI,
        sentence=(
            f"{churn:.1%} of the users change their segment, at most {MOST_CHURN:.0%} is asked unless the champion's shares "
            f"have drifted (stability index {drift:.2f}, drifted above {NOTABLE_PSI})"
        ),
        numbers={"churn": churn, "drift": drift},
    )]  # fmt: skip


def _ids(runtime: Runtime, labels: IntArray) -> IntArray:
    return np.array([profile.segment_id for profile in _segments(runtime)])[labels]


def population_shift(shares: Sequence[float], labels: IntArray) -> float:
    """Return the population stability index of the champion's segments: shares when it was fitted against shares now."""
    now = np.bincount(labels, minlength=len(shares)) / labels.size
    return stability_index(shares, now.tolist(), least=(SMALLEST_COMPARED, SMALLEST_COMPARED))


def _reports(
    rows: Mapping[str, FloatArray], labels: Mapping[str, IntArray], *, candidate: Runtime, champion: Runtime | None
) -> dict[str, dict[str, float]]:  # fmt: skip
    reports = {
        name: {
            "silhouette": float(np.mean(given)),
            "segments": float(np.unique(labels[name]).size),
        }
        for name, given in rows.items()
    }
    reports["shares"] = {
        f"{profile.segment_id} {profile.name}": float(np.mean(labels[CANDIDATE] == place))
        for place, profile in enumerate(_segments(candidate))
    }
    if champion is not None:
        before, after = _ids(champion, labels[CHAMPION]), _ids(candidate, labels[CANDIDATE])
        pairs, counts = np.unique(np.stack([before, after]), axis=1, return_counts=True)
        reports["migration"] = {
            f"{pairs[0, place]} -> {pairs[1, place]}": float(counts[place] / before.size)
            for place in range(counts.size)
        }
    return reports
