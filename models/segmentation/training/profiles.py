"""How segments are named and described: ids that stay, names, shares, medians and the most telling features.

A segment keeps the champion's id and name while it keeps most of its members; an id is never given to another segment.
The bands of version 0 are no segments: after them, a segment that fits one of the host's five names takes its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from models.segmentation.features import SEGMENTATION_FEATURES
from models.segmentation.runtime import SEGMENT_NAMES, SegmentProfile
from models.segmentation.training.clustering import overlaps

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SAME_JACCARD = 0.5  # below that a segment counts as dissolved, and at most one other can reach it
NAME_FITS = 0.5  # robust standard deviations away from the median user
TELLING = 3

# How far from the median user a segment of the host's name lies; the order is that of the host's ids.
_SIGNS: tuple[Mapping[str, int], ...] = (
    {"monetary_sum": -1, "frequency": -1},
    {"frequency": 1, "days_between_debits": -1, "monetary_mean": -1},
    {"goals_decided": 1, "goals_achieved_share": 1},
    {"monetary_mean": -1, "goals_achieved_share": 1},
    {"monetary_sum": 1, "monetary_mean": 1},
)


class Known(NamedTuple):
    """The champion's segments: their profiles, the label that it gives to each row, and the first id that was never used."""

    profiles: Sequence[SegmentProfile]
    labels: IntArray
    next_id: int


def profiles_of(
    rows: Float32Array, points: Float32Array, labels: IntArray, *, segments: int, known: Known | None
) -> list[SegmentProfile]:
    """Return the profile of each label; ``rows`` (n, d) are raw, ``points`` (n, d) the same users in the space."""
    medians = np.stack([np.median(points[labels == label], axis=0) for label in range(segments)])
    centres = (medians - np.median(points, axis=0)).astype(np.float64)
    kept = kept_segments(labels, segments, known) if known else {}
    named = _identities(centres, kept, known.next_id if known else len(SEGMENT_NAMES))
    return [
        _profile(rows[labels == label], len(rows), centres[label], identity=named[label]) for label in range(segments)
    ]


def kept_segments(labels: IntArray, segments: int, known: Known) -> dict[int, SegmentProfile]:
    """Return for each label that goes on with one of the champion's segments the profile of that segment."""
    shared = overlaps(labels, known.labels, shape=(segments, len(known.profiles)))
    ours, theirs = linear_sum_assignment(-shared)
    return {
        int(label): known.profiles[other]
        for label, other in zip(ours, theirs, strict=True)
        if shared[label, other] >= SAME_JACCARD
    }


def _identities(centres: FloatArray, kept: Mapping[int, SegmentProfile], next_id: int) -> list[tuple[int, str]]:
    """Return (id, name) of each label; no two segments have the same."""
    identities = {label: (profile.segment_id, profile.name) for label, profile in kept.items()}
    new = [label for label in range(len(centres)) if label not in identities]
    hosts = _host_names(centres[new], taken={name for _, name in identities.values()})
    first_version = not kept and next_id == len(SEGMENT_NAMES)
    for place, label in enumerate(new):
        host = hosts.get(place)
        if host is not None and first_version:
            identities[label] = (host, SEGMENT_NAMES[host])
            continue
        name = SEGMENT_NAMES[host] if host is not None else described(centres[label])
        if name in {used for _, used in identities.values()}:
            name = f"{name} ({next_id})"
        identities[label] = (next_id, name)
        next_id += 1
    return [identities[label] for label in range(len(centres))]


def _host_names(centres: FloatArray, *, taken: set[str]) -> dict[int, int]:
    """Return for the rows of ``centres`` that fit one of the host's names the number of that name, each at most once."""
    free = [number for number, name in enumerate(SEGMENT_NAMES) if name not in taken]
    if not free or not len(centres):
        return {}
    fits = np.array([[_fit(centre, _SIGNS[number]) for number in free] for centre in centres])
    places, numbers = linear_sum_assignment(-np.maximum(fits, 0.0))
    return {
        int(place): free[number]
        for place, number in zip(places, numbers, strict=True)
        if fits[place, number] >= NAME_FITS
    }


def _fit(centre: FloatArray, signs: Mapping[str, int]) -> float:
    return float(np.mean([sign * centre[SEGMENTATION_FEATURES.index(name)] for name, sign in signs.items()]))


def telling_features(centre: FloatArray) -> list[str]:
    """Return the features that set a segment apart, the most telling first; those like everybody's are left out."""
    order = np.argsort(-np.abs(centre), kind="stable")[:TELLING]
    return [SEGMENTATION_FEATURES[column] for column in order if abs(centre[column]) > 0.0]


def described(centre: FloatArray) -> str:
    """Return a name that says how a segment differs from the median user."""
    words = [
        f"{'high' if centre[SEGMENTATION_FEATURES.index(name)] > 0 else 'low'} {name.replace('_', ' ')}"
        for name in telling_features(centre)[:2]
    ]
    return ", ".join(words).capitalize() or "Typical"


def _profile(members: Float32Array, total: int, centre: FloatArray, *, identity: tuple[int, str]) -> SegmentProfile:
    lower, median, upper = np.quantile(members, [0.25, 0.5, 0.75], axis=0)
    return SegmentProfile(
        segment_id=identity[0],
        name=identity[1],
        share=len(members) / total,
        medians=dict(zip(SEGMENTATION_FEATURES, median.tolist(), strict=True)),
        spreads=dict(zip(SEGMENTATION_FEATURES, (upper - lower).tolist(), strict=True)),
        telling=telling_features(centre),
    )
