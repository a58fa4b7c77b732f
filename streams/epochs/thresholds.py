"""When a data set is large and good enough to train on. Pure: values in, a decision with its reasons out.

    T = clip(T0 * size * season * cost * drift, least, most)

- T0: the configured threshold.
- size = sqrt(N / N0), at least 1. N data points are in all closed epochs without a quarantine, the data of the last training;
  N0 are in the first of them. The more data a model has seen, the more it takes to improve it.
- season: the data points expected in the next 24 hours relative to a mean day, within [0.5, 2]. Before a busy day it
  pays to wait. 1 until a week of arrivals is known.
- cost = sqrt(K / K0), within [0.5, 2]. K is the duration of the last trainings, K0 that of the first ones (or the configured
  reference). The square root is that of the economic order quantity, which balances order cost and waiting cost.
- drift = 1 / (1 + PSI / 0.25), with the PSI of the open data set against earlier ones. A model whose data has moved
  is trained sooner.

The count that is compared with T leaves out what one user gave beyond a share of T, so that no single user, bot or replay
triggers a training. :func:`decide` works on values alone, so a simulation needs no database.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from modelkit.statistics.stability import NOTABLE_PSI
from schemas.evaluations import EvaluationRecord, RuleFactors
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import DatasetReview, ThresholdDecision
from streams.epochs.blackouts import is_blacked_out
from streams.quality.assessment import QualityAssessment

SEASON_RANGE = COST_RANGE = (0.5, 2.0)
LARGEST_SHARE = 0.5  # of the threshold, so that one user never reaches it alone
NOTABLE_EXCESS = 0.1  # of the threshold; a person is alerted of a larger excess of single users
_TIMES = "\N{MULTIPLICATION SIGN}"
NOTABLE_STEP = 0.1  # a change of threshold (relative) or quality score (absolute) that deserves an entry in the history


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision depends on besides the data set. None means unknown, and has no effect.

    ``learned`` and ``first``: data points in all closed epochs, and in the first; ``arrivals_ratio``: expected in the next 24
    hours, relative to a mean day; ``cost_seconds`` and ``first_cost_seconds``: of the last and the first trainings;
    ``age_seconds``: since the epoch began; ``seconds_since_epoch``: since the last crossing; ``moment``: now, by the wall clock.
    """

    learned: int = 0
    first: int = 0
    arrivals_ratio: float | None = None
    cost_seconds: float | None = None
    first_cost_seconds: float | None = None
    psi: float | None = None
    age_seconds: float | None = None
    seconds_since_epoch: float | None = None
    moment: dt.datetime | None = None
    review: DatasetReview = DatasetReview.NONE
    reviewed_by: str | None = None


class Adaptation(msgspec.Struct, frozen=True, kw_only=True):
    """The threshold in force, ``wanted`` before the bounds, each factor, and whether age lowered the threshold."""

    threshold: int
    wanted: float
    size: float = 1.0
    season: float = 1.0
    cost: float = 1.0
    drift: float = 1.0
    is_aged: bool = False


class Evaluation(EvaluationRecord, frozen=True, kw_only=True):
    """A decision by the rule with all its factors."""

    factors: RuleFactors

    @property
    def fired(self) -> bool:
        """Whether the epoch is complete."""
        return self.decision is ThresholdDecision.FIRED

    @property
    def withholds_much(self) -> bool:
        """Whether single users gave so much beyond their share that a person should know."""
        return bool(self.counted - self.effective_count > NOTABLE_EXCESS * self.threshold)

    def differs_from(self, recorded: Mapping[str, Any] | None) -> bool:
        """Return whether the decision differs from the one last recorded, or its figures differ notably."""
        if recorded is None or recorded["decision"] != self.decision:
            return True
        if abs(self.threshold - recorded["threshold"]) > NOTABLE_STEP * recorded["threshold"]:
            return True
        if self.decision is ThresholdDecision.WAITING_FOR_COUNT:
            return bool(self.withholds_much != recorded["withholds_much"])
        return bool(abs((self.quality_score or 0.0) - (recorded["quality_score"] or 0.0)) > NOTABLE_STEP)

    def recorded(self) -> dict[str, Any]:
        """Return what :meth:`differs_from` compares the next evaluation with."""
        return {
            "decision": str(self.decision),
            "threshold": self.threshold,
            "quality_score": self.quality_score,
            "withholds_much": self.withholds_much,
        }


def adapted(rule: ThresholdRule, now: Circumstances) -> Adaptation:
    """Return the threshold in force: the configured one, adapted by size, season, cost and drift, and lowered at the maximum age."""
    wanted, factors = float(rule.threshold), _factors(rule, now) if rule.adaptive else {}
    threshold = rule.threshold
    if rule.adaptive:
        wanted *= math.prod(factors.values())
        least, most = rule.bounds()
        threshold = math.ceil(round(min(max(wanted, least), most), 6))
    aged = min(threshold, rule.aged_threshold())
    is_aged = None not in {now.age_seconds, rule.max_age_seconds} and now.age_seconds >= rule.max_age_seconds  # type: ignore[operator]
    return Adaptation(threshold=aged if is_aged else threshold, wanted=wanted, is_aged=is_aged, **factors)


def user_cap(rule: ThresholdRule, *, threshold: int, users: int) -> int:
    """Return how many data points each of ``users`` users may give towards ``threshold``: at most half of it, but at least one."""
    share = min(max(rule.user_share, rule.even_share / max(users, 1)), LARGEST_SHARE)
    return max(1, math.floor(share * threshold))


def effective_count(
    rule: ThresholdRule, threshold: int, *, counted: int, users: int, excess: Callable[[int], int] | None
) -> int:
    """Return how many of ``counted`` data points count towards ``threshold``; ``excess`` returns how many exceed a cap per user."""
    return counted - min(excess(user_cap(rule, threshold=threshold, users=users)), counted) if excess else counted


def decide(
    rule: ThresholdRule,
    now: Circumstances = Circumstances(),  # noqa: B008 - immutable
    *,
    counted: int,
    quality: QualityAssessment | None,
    users: int = 0,
    excess: Callable[[int], int] | None = None,
) -> Evaluation:
    """Decide about ``counted`` data points of ``quality`` by ``users`` users; ``excess`` as in :func:`effective_count`.

    Age lowers the required count and nothing else. A person's approval replaces the quality gate and its floors. A
    quarantined data set never fires.
    """
    adaptation = adapted(rule, now)
    cap = user_cap(rule, threshold=adaptation.threshold, users=users)
    effective = effective_count(rule, adaptation.threshold, counted=counted, users=users, excess=excess)
    withheld = counted - effective
    decision, because = _decision(rule, now, adaptation, effective=effective, quality=quality)
    left_aside = f" ({counted} counted, {withheld} beyond {cap} a user)" if withheld else ""
    return Evaluation(
        decision=decision,
        counted=counted,
        effective_count=float(effective),
        threshold=adaptation.threshold,
        quality_score=quality.score if quality else None,
        factors=RuleFactors(
            **_rule_factors(rule),
            **msgspec.structs.asdict(now),
            **msgspec.structs.asdict(adaptation),
            in_blackout=_is_blacked_out(rule, now),
            counted=counted,
            users=users,
            user_cap=cap,
            withheld=withheld,
            effective=effective,
            quality_score=quality.score if quality else None,
            dimensions=quality.dimensions if quality else {},
            below_floor=quality.below_floor if quality else (),
        ),
        sentence=f"{effective} of {adaptation.threshold}{_adapted_text(rule, adaptation)}{left_aside}, {because}",
    )


def _factors(rule: ThresholdRule, now: Circumstances) -> dict[str, float]:
    reference = rule.reference_cost_seconds or now.first_cost_seconds
    cost = math.sqrt(now.cost_seconds / reference) if now.cost_seconds and reference else 1.0
    season = 1.0 if now.arrivals_ratio is None else now.arrivals_ratio
    return {
        "size": math.sqrt(max(now.learned / now.first, 1.0)) if now.first else 1.0,
        "season": min(max(season, SEASON_RANGE[0]), SEASON_RANGE[1]),
        "cost": min(max(cost, COST_RANGE[0]), COST_RANGE[1]),
        "drift": 1 / (1 + (now.psi or 0.0) / NOTABLE_PSI),
    }


def _decision(
    rule: ThresholdRule,
    now: Circumstances,
    adaptation: Adaptation,
    *,
    effective: int,
    quality: QualityAssessment | None,
) -> tuple[ThresholdDecision, str]:
    judged = f"quality {quality.score:.2f}" if quality else "quality not judged"
    if now.review is DatasetReview.QUARANTINED:
        return ThresholdDecision.QUARANTINED, f"{judged}, quarantined by {now.reviewed_by}: not trained"
    if effective < adaptation.threshold:
        return ThresholdDecision.WAITING_FOR_COUNT, f"{judged}: collecting"
    if now.review is DatasetReview.APPROVED:
        judged = f"{judged} accepted by {now.reviewed_by}"
    elif (lacking := _lacking(rule, quality)) is not None:
        return ThresholdDecision.WAITING_FOR_QUALITY, f"{judged}{lacking}: waiting"
    if now.seconds_since_epoch is not None and now.seconds_since_epoch < rule.cool_down_seconds:
        left = rule.cool_down_seconds - now.seconds_since_epoch
        return ThresholdDecision.COOLING_DOWN, f"{judged}, cooling down for {left:.0f} s more: waiting"
    if _is_blacked_out(rule, now):
        return ThresholdDecision.IN_BLACKOUT, f"{judged}, no training in {', '.join(rule.blackouts)} UTC: waiting"
    return ThresholdDecision.FIRED, f"{judged}: train"


def _lacking(rule: ThresholdRule, quality: QualityAssessment | None) -> str | None:
    if quality is None or quality.score < rule.quality_gate:
        return f" below {rule.quality_gate:.2f}"
    if quality.below_floor:
        listed = ", ".join(f"{name} {quality.dimensions[name] or 0.0:.2f}" for name in quality.below_floor)
        return f" but {listed} too low"
    return None


def _is_blacked_out(rule: ThresholdRule, now: Circumstances) -> bool:
    return now.moment is not None and is_blacked_out(rule.blackouts, now.moment)


def _adapted_text(rule: ThresholdRule, made: Adaptation) -> str:
    if made.is_aged:
        return f" ({rule.threshold} lowered by age)"
    if made.threshold == rule.threshold:
        return ""
    bound = (
        ""
        if made.threshold - 1 < made.wanted <= made.threshold
        else f", kept within {rule.bounds()[0]} to {rule.bounds()[1]}"
    )
    return (
        f" ({rule.threshold} adapted: {_TIMES}{made.size:.2f} for size, {_TIMES}{made.season:.2f} season, {_TIMES}{made.cost:.2f} cost,"
        f" {_TIMES}{made.drift:.2f} drift{bound})"
    )


def _rule_factors(rule: ThresholdRule) -> dict[str, Any]:
    least, most = rule.bounds()
    return {
        "configured": rule.threshold,
        "quality_gate": rule.quality_gate,
        "cool_down_seconds": rule.cool_down_seconds,
        "adaptive": rule.adaptive,
        "least": least,
        "most": most,
        "max_age_seconds": rule.max_age_seconds,
        "blackouts": rule.blackouts,
        "user_share": rule.user_share,
        "even_share": rule.even_share,
        "reference_cost_seconds": rule.reference_cost_seconds,
    }
