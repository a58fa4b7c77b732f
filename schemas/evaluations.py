"""The record of a threshold evaluation: the decision and all factors that led to it. Pure.

Streams writes it and admin explains it. It is stored as JSON. A new factor needs a default, because older evaluations lack it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.vocabulary import DatasetReview, ThresholdDecision


class Factors(msgspec.Struct, frozen=True, kw_only=True):
    """The factors of every decision: the count, the threshold in force, the quality, and a person's review."""

    counted: int
    threshold: int
    quality_score: float | None
    review: DatasetReview
    reviewed_by: str | None


class RuleFactors(Factors, frozen=True, kw_only=True):
    """The factors of a decision by the rule. None means unknown or not set. ``admin.status.explaining`` explains each."""

    users: int
    user_cap: int
    withheld: int
    effective: int
    configured: int
    quality_gate: float
    cool_down_seconds: int
    adaptive: bool
    least: int
    most: int
    max_age_seconds: int | None
    blackouts: tuple[str, ...]
    user_share: float
    even_share: float
    reference_cost_seconds: float | None
    learned: int
    first: int
    arrivals_ratio: float | None
    cost_seconds: float | None
    first_cost_seconds: float | None
    psi: float | None
    age_seconds: float | None
    seconds_since_epoch: float | None
    moment: dt.datetime | None
    wanted: float
    size: float
    season: float
    cost: float
    drift: float
    is_aged: bool
    in_blackout: bool
    dimensions: dict[str, float | None]
    below_floor: tuple[str, ...]


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about a data set with its factors, and one sentence for a person."""

    decision: ThresholdDecision
    counted: int
    effective_count: float
    threshold: int
    quality_score: float | None
    factors: Factors
    sentence: str


class StoredEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation as read back. ``other_factors`` are those that this version does not know or cannot read."""

    decision: str
    sentence: str
    factors: Factors
    other_factors: dict[str, Any]


def read_evaluation(stored: Mapping[str, Any]) -> StoredEvaluation:
    """Return a stored evaluation, whichever version wrote it."""
    factors, others = read_factors(stored["factors"])
    return StoredEvaluation(
        decision=stored["decision"], sentence=stored["sentence"], factors=factors, other_factors=others
    )


def read_factors(stored: Mapping[str, Any]) -> tuple[Factors, dict[str, Any]]:
    """Return the stored factors, and separately those that have no field here."""
    try:
        factors: Factors = msgspec.convert(stored, RuleFactors)
    except msgspec.ValidationError:
        factors = msgspec.convert(stored, Factors)
    known = factors.__struct_fields__
    return factors, {name: value for name, value in stored.items() if name not in known}
