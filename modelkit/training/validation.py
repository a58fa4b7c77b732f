"""The gates: may this candidate take the champion's place? Values in, verdict with every number out. Pure.

Order of the gates: sanity, absolute floor, trivial baselines, champion, slices, stability. Differences have
95 % intervals from a bootstrap that draws users: drawing rows promoted a null model 12 % of the time at a
nominal 5 %.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.messages.training import MetricComparison
from schemas.vocabulary import Verdict

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Statistic = Callable[[FloatArray], float]
Stage = Literal["sanity", "floor", "baselines", "champion", "slices", "stability"]

CANDIDATE = "candidate"
CHAMPION = "champion"
STAGES: tuple[Stage, ...] = ("sanity", "floor", "baselines", "champion", "slices", "stability")
REJECTING: frozenset[Stage] = frozenset({"sanity", "floor"})
REPLICATES = 1_000


def mean_of_rows(rows: FloatArray) -> float:
    """Return the mean of (n,) rows: the statistic of metrics that are averages of one number a row."""
    return float(np.mean(rows))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One gate's outcome: what was asked, in a sentence with its figures, and whether it held."""

    stage: Stage
    name: str
    passed: bool
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a trainer found on the frozen, time-ordered holdout.

    Attributes:
        metric: name of the headline metric.
        higher_is_better: its direction.
        clusters: (n,) number of the user of each row.
        rows: per subject ("candidate", "champion" and every trivial baseline by its name) what the statistic needs
            of each row, (n,) or (n, k), in the same order for all subjects.
        baselines: names of the trivial baselines among ``rows``.
        statistic: rows of one subject to the headline metric; the default is the mean.
        floor: value that the candidate must reach at least (at most, where lower is better).
        checks: further gates that only this model has.
        reports: other metrics by subject, for people.
    """

    metric: str
    higher_is_better: bool
    clusters: IntArray
    rows: Mapping[str, FloatArray]
    baselines: tuple[str, ...]
    statistic: Statistic = mean_of_rows
    floor: float | None = None
    checks: Sequence[Check] = ()
    reports: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """How much is asked. Ratios are of the other subject's own value of the metric.

    Attributes:
        baseline_margin: share of the best baseline's value by which the candidate may be worse at the lower bound of the interval.
        champion_margin: the same against the champion; the difference itself must be positive too.
        confidence: of the two-sided intervals.
        fewest_clusters: with fewer users on the holdout nothing is promoted.
    """

    baseline_margin: float = 0.0
    champion_margin: float = 0.01
    confidence: float = 0.95
    fewest_clusters: int = 30


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure by which a model is judged: its name in reports, its direction, and its unit in words."""

    name: str
    higher_is_better: bool
    unit: str


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A model's headline metric, and how much is asked of a candidate."""

    metric: Metric
    policy: GatePolicy


class Interval(NamedTuple):
    """A difference, oriented so that positive is better for the candidate, with its bounds."""

    difference: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict with every number that led to it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    comparison: MetricComparison
    numbers: Mapping[str, Any]


def paired_bootstrap(
    evidence: Evidence, subject: str, other: str, *, seed: int, confidence: float = 0.95, replicates: int = REPLICATES
) -> Interval:
    """Return (subject - other), oriented so that positive is better, with a percentile interval over users.

    Each replicate draws as many users as there are, with replacement, and takes all rows of a drawn user for
    both subjects: Efron and Tibshirani (1993), chapter 13, on clusters.
    """
    ours, theirs = evidence.rows[subject], evidence.rows[other]
    sign = 1.0 if evidence.higher_is_better else -1.0
    difference = sign * (evidence.statistic(ours) - evidence.statistic(theirs))
    generator = np.random.default_rng(seed)
    if evidence.statistic is mean_of_rows:
        draws = sign * _mean_draws(ours - theirs, evidence.clusters, generator, replicates=replicates)
    else:
        draws = sign * _statistic_draws(evidence, (ours, theirs), generator, replicates=replicates)
    finite = draws[np.isfinite(draws)]
    if finite.size == 0:
        return Interval(difference, float("-inf"), float("inf"))
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(finite, [tail, 1 - tail])
    return Interval(difference, float(lower), float(upper))


def _mean_draws(
    differences: FloatArray, clusters: IntArray, generator: np.random.Generator, *, replicates: int
) -> FloatArray:
    """Draw means through sums and counts per user: the rows themselves need not be copied."""
    sums, counts = np.bincount(clusters, weights=differences), np.bincount(clusters).astype(np.float64)
    draws = np.empty(replicates)
    for number in range(replicates):
        drawn = generator.integers(0, sums.size, sums.size)
        draws[number] = sums[drawn].sum() / counts[drawn].sum()
    return draws


def _statistic_draws(
    evidence: Evidence, pair: tuple[FloatArray, FloatArray], generator: np.random.Generator, *, replicates: int
) -> FloatArray:
    order = np.argsort(evidence.clusters, kind="stable")
    starts = np.searchsorted(evidence.clusters[order], np.arange(int(evidence.clusters.max()) + 2))
    members = [order[start:end] for start, end in itertools.pairwise(starts)]
    draws = np.empty(replicates)
    for number in range(replicates):
        rows = np.concatenate([members[user] for user in generator.integers(0, len(members), len(members))])
        draws[number] = evidence.statistic(pair[0][rows]) - evidence.statistic(pair[1][rows])
    return draws


def judge(evidence: Evidence, policy: GatePolicy, *, sanity: Sequence[Check] = (), seed: int = 0) -> Judgement:
    """Return the verdict on the candidate in ``evidence``.

    A failed sanity check or floor rejects it. Not being better than the best trivial baseline, the champion or
    one of the model's own later checks keeps the champion. Without a champion among the rows the champion's
    gate passes.
    """
    values = {name: evidence.statistic(rows) for name, rows in evidence.rows.items()}
    checks = [*sanity, *_measured_checks(evidence, policy, values)]
    intervals: dict[str, Interval] = {}
    if all(check.passed for check in checks):
        intervals = _intervals(evidence, policy, values, seed=seed)
        checks += _interval_checks(evidence, policy, values, intervals=intervals)
    checks = sorted([*checks, *evidence.checks], key=lambda check: STAGES.index(check.stage))
    return Judgement(
        verdict=_verdict(checks),
        reasons=_reasons(checks),
        comparison=_comparison(evidence, values, intervals),
        numbers=_numbers(evidence, values, intervals, checks=checks),
    )


def _measured_checks(evidence: Evidence, policy: GatePolicy, values: Mapping[str, float]) -> list[Check]:
    users = int(np.unique(evidence.clusters).size)
    value = values[CANDIDATE]
    checks = [
        Check(
            stage="sanity", name="finite", passed=bool(np.isfinite(value) and np.all(np.isfinite(evidence.rows[CANDIDATE]))),
            sentence=f"all of the candidate's figures on the holdout are finite ({evidence.metric} {value:.4f})",
        ),
        Check(
            stage="champion", name="users_on_holdout", passed=users >= policy.fewest_clusters,
            sentence=f"{users} users on the holdout, at least {policy.fewest_clusters} are needed to tell a difference",
            numbers={"users": users},
        ),
    ]  # fmt: skip
    if evidence.floor is not None:
        reached = value >= evidence.floor if evidence.higher_is_better else value <= evidence.floor
        direction = "at least" if evidence.higher_is_better else "at most"
        sentence = f"{evidence.metric} {value:.4f}, {direction} {evidence.floor:.4f} is asked"
        checks.append(Check(stage="floor", name="absolute_floor", passed=bool(reached), sentence=sentence))
    return checks


def best_baseline(evidence: Evidence, values: Mapping[str, float]) -> str | None:
    """Return the name of the trivial baseline that does best on the holdout, or None when there is none."""
    names = [name for name in evidence.baselines if np.isfinite(values[name])]
    if not names:
        return None
    return (max if evidence.higher_is_better else min)(names, key=lambda name: values[name])


def _intervals(
    evidence: Evidence, policy: GatePolicy, values: Mapping[str, float], *, seed: int
) -> dict[str, Interval]:
    others = [best_baseline(evidence, values), CHAMPION if CHAMPION in evidence.rows else None]
    return {
        other: paired_bootstrap(evidence, CANDIDATE, other, seed=seed, confidence=policy.confidence)
        for other in others
        if other is not None
    }


def _interval_checks(
    evidence: Evidence, policy: GatePolicy, values: Mapping[str, float], *, intervals: Mapping[str, Interval]
) -> list[Check]:
    checks = []
    for other, interval in intervals.items():
        against_champion = other == CHAMPION
        margin = (policy.champion_margin if against_champion else policy.baseline_margin) * abs(values[other])
        checks.append(
            Check(
                stage="champion" if against_champion else "baselines",
                name=f"better_than_{other}",
                passed=interval.lower > -margin and interval.difference > 0,
                sentence=(
                    f"{evidence.metric} {values[CANDIDATE]:.4f} against {values[other]:.4f} of {other}: gain {interval.difference:+.4f} "
                    f"[{interval.lower:+.4f}, {interval.upper:+.4f}], which must be above 0 with a lower bound above {-margin:+.4f}"
                ),
                numbers={
                    "difference": interval.difference,
                    "lower": interval.lower,
                    "upper": interval.upper,
                    "margin": margin,
                },
            )
        )
    return checks


def _verdict(checks: Sequence[Check]) -> Verdict:
    failed = [check for check in checks if not check.passed]
    if any(check.stage in REJECTING for check in failed):
        return Verdict.REJECTED
    return Verdict.CHAMPION_KEPT if failed else Verdict.CANDIDATE_WINS


def _reasons(checks: Sequence[Check]) -> tuple[str, ...]:
    failed = [check for check in checks if not check.passed]
    return tuple(f"{check.stage}: {check.sentence}" for check in failed or checks)


def _comparison(evidence: Evidence, values: Mapping[str, float], intervals: Mapping[str, Interval]) -> MetricComparison:
    baseline = best_baseline(evidence, values)
    shown = intervals.get(CHAMPION) or (intervals.get(baseline) if baseline else None)
    return MetricComparison(
        metric=evidence.metric,
        higher_is_better=evidence.higher_is_better,
        candidate=values[CANDIDATE],
        champion=values.get(CHAMPION),
        baseline=values[baseline] if baseline else None,
        baseline_name=baseline,
        lower=shown.lower if shown else None,
        upper=shown.upper if shown else None,
    )


def _numbers(
    evidence: Evidence, values: Mapping[str, float], intervals: Mapping[str, Interval], *, checks: Sequence[Check]
) -> dict[str, Any]:
    return {
        "metric": evidence.metric,
        "values": dict(values),
        "intervals": {name: interval._asdict() for name, interval in intervals.items()},
        "rows": int(evidence.clusters.size),
        "users": int(np.unique(evidence.clusters).size),
        "reports": {name: dict(report) for name, report in evidence.reports.items()},
        "checks": [
            {"stage": check.stage, "name": check.name, "passed": check.passed, "sentence": check.sentence, **check.numbers}
            for check in checks
        ],
    }  # fmt: skip
