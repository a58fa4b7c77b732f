"""When a data set is large and good enough to train on. Pure: values in, a decision with its reasons out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.vocabulary import ThresholdDecision
from streams.quality import QualityAssessment


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRule:
    """A model's threshold (data points), quality gate (0..1) and least time between two epochs."""

    threshold: int
    quality_gate: float
    cool_down_seconds: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with every number that led to it, and one sentence for a person."""

    decision: ThresholdDecision
    counted: int
    effective_count: float
    threshold: int
    quality_score: float | None
    factors: dict[str, Any]
    sentence: str

    @property
    def fired(self) -> bool:
        """Whether the epoch is complete."""
        return self.decision is ThresholdDecision.FIRED


def decide(
    rule: ThresholdRule, *, counted: int, quality: QualityAssessment | None, seconds_since_epoch: float | None
) -> Evaluation:
    """Decide about ``counted`` data points of ``quality``, ``seconds_since_epoch`` after the previous epoch (None: the first)."""
    decision, because = _decision(rule, counted=counted, quality=quality, seconds_since_epoch=seconds_since_epoch)
    return Evaluation(
        decision=decision,
        counted=counted,
        effective_count=float(counted),
        threshold=rule.threshold,
        quality_score=quality.score if quality else None,
        factors={
            "threshold": rule.threshold,
            "quality_gate": rule.quality_gate,
            "cool_down_seconds": rule.cool_down_seconds,
            "seconds_since_epoch": seconds_since_epoch,
            "dimensions": quality.dimensions if quality else {},
            "below_floor": quality.below_floor if quality else (),
        },
        sentence=f"{counted} of {rule.threshold}, {because}",
    )


def _decision(
    rule: ThresholdRule, *, counted: int, quality: QualityAssessment | None, seconds_since_epoch: float | None
) -> tuple[ThresholdDecision, str]:
    quality_text = f"quality {quality.score:.2f}" if quality else "quality not judged"
    if counted < rule.threshold:
        return ThresholdDecision.WAITING_FOR_COUNT, f"{quality_text}: collecting"
    if quality is None or quality.score < rule.quality_gate:
        return ThresholdDecision.WAITING_FOR_QUALITY, f"{quality_text} below {rule.quality_gate:.2f}: waiting"
    if quality.below_floor:
        return ThresholdDecision.WAITING_FOR_QUALITY, f"{quality_text} but {_listed(quality)} too low: waiting"
    if seconds_since_epoch is not None and seconds_since_epoch < rule.cool_down_seconds:
        left = rule.cool_down_seconds - seconds_since_epoch
        return ThresholdDecision.COOLING_DOWN, f"{quality_text}, cooling down for {left:.0f} s more: waiting"
    return ThresholdDecision.FIRED, f"{quality_text}: train"


def _listed(quality: QualityAssessment) -> str:
    return ", ".join(f"{name} {quality.dimensions[name] or 0.0:.2f}" for name in quality.below_floor)
