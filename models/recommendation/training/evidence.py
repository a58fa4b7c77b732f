"""What candidate, champion and trivial policies would have earned on the holdout, and how well the log supports the claim."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelkit.interface import PredictionRequest, Runtime
from modelkit.training.off_policy import (
    Log,
    RewardModel,
    best_single_action,
    constant_policy,
    dr_terms,
    dros_terms,
    effective_sample_size,
    estimates,
    importance_weights,
    snips,
    uniform_policy,
)
from modelkit.training.validation import CANDIDATE, CHAMPION, Check, Evidence
from models.recommendation.gate import GATE
from models.recommendation.training.candidates import PROPENSITY_FLOOR
from models.recommendation.training.examples import (
    ACTION_SET,
    ACTIONS,
    ARMS,
    CONTEXT_SCHEMA,
    LoggedRecommendations,
    RecommendationExamples,
)

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

UNIFORM, SINGLE_ACTION, LOGGED = "uniform", "best_single_action", "logged"
# A bootstrap over fewer effective samples is not reliable, however wide its interval.
FEWEST_EFFECTIVE = 100
_EFFECTIVE_SHARE = 0.1
_ANY_MOMENT = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def served_policy(runtime: Runtime, features: Float32Array) -> FloatArray:
    """Return the exact propensities with which a version would have answered rows (n, 35), shape (n, 5).

    Raises:
        ValueError: for a version that names no propensities.
    """
    request = PredictionRequest(as_of=_ANY_MOMENT)
    served = [runtime.answer(row, request).propensities for row in features]
    if any(chances is None for chances in served):
        raise ValueError("a recommendation version must name the propensities of its answers")
    return np.array(served, dtype=np.float64)


def evidence_of(
    examples: RecommendationExamples, *, candidate: Runtime, champion: Runtime | None, most_effective: int
) -> Evidence:
    """Return the rows of all subjects on the holdout.

    The headline is the doubly robust value; its reward model has seen only what came before. Trivial policies keep the
    floor that every served policy must keep. ``logged`` is what the served versions really earned.
    """
    holdout, known = examples.holdout, examples.known
    values = RewardModel(known.features, known.log, actions=ARMS).values(holdout.features)
    policies = {CANDIDATE: served_policy(candidate, holdout.features), **_trivial(known.log, rows=len(holdout))}
    comparable = champion is not None and _is_comparable(champion)
    if champion is not None and comparable:
        policies[CHAMPION] = served_policy(champion, holdout.features)
    rows = {name: dr_terms(policy, holdout.log, values) for name, policy in policies.items()}
    rows[LOGGED] = np.asarray(holdout.log.rewards, dtype=np.float64)
    checks = [
        _effective_samples(policies[CANDIDATE], holdout.log, most_effective),
        _signs_agree(policies, holdout.log, values),
    ]
    if champion is not None and not comparable:
        checks.append(_NOT_COMPARABLE)
    return Evidence(
        metric=GATE.metric.name, higher_is_better=GATE.metric.higher_is_better, clusters=holdout.users, rows=rows, baselines=(UNIFORM, SINGLE_ACTION, LOGGED),
        checks=checks, reports={**_reports(policies, holdout, values), LOGGED: _logged_report(holdout)},
    )  # fmt: skip


_NOT_COMPARABLE = Check(
    stage="champion", name="champion_is_comparable", passed=True,
    sentence="the champion chooses among other actions or from another context, so only the trivial policies are compared",
)  # fmt: skip


def _is_comparable(champion: Runtime) -> bool:
    manifest = champion.manifest
    return (manifest.action_set, manifest.actions, manifest.context_schema) == (ACTION_SET, ACTIONS, CONTEXT_SCHEMA)


def _trivial(log: Log, *, rows: int) -> dict[str, FloatArray]:
    best = best_single_action(log, actions=ARMS)
    return {
        UNIFORM: uniform_policy(rows=rows, actions=ARMS),
        SINGLE_ACTION: constant_policy(best, rows=rows, actions=ARMS, floor=PROPENSITY_FLOOR),
    }


def effective_floor(rows: int, *, most: int) -> float:
    """Return how many effective samples are asked of a holdout of ``rows``: a tenth of it, at least 100, at most ``most``."""
    return float(min(most, max(FEWEST_EFFECTIVE, _EFFECTIVE_SHARE * rows)))


def _effective_samples(policy: FloatArray, log: Log, most: int) -> Check:
    effective, floor = (
        effective_sample_size(importance_weights(policy, log)),
        effective_floor(len(log.actions), most=most),
    )
    return Check(
        stage="stability", name="effective_samples", passed=effective >= floor,
        sentence=f"{len(log.actions)} logged answers tell as much about the candidate as {effective:.0f} of its own, {floor:.0f} are asked",
        numbers={"effective_samples": effective, "floor": floor},
    )  # fmt: skip


def _signs_agree(policies: Mapping[str, FloatArray], log: Log, values: FloatArray) -> Check:
    other = CHAMPION if CHAMPION in policies else UNIFORM
    robust, shrunk = (
        float(np.mean(terms(policies[CANDIDATE], log, values) - terms(policies[other], log, values)))
        for terms in (dr_terms, dros_terms)
    )
    return Check(
        stage="stability", name="estimators_agree", passed=robust * shrunk > 0.0,
        sentence=f"gain over {other} {robust:+.4f} by DR and {shrunk:+.4f} by DRos, which must agree in sign",
        numbers={"dr": robust, "dros": shrunk},
    )  # fmt: skip


def _reports(
    policies: Mapping[str, FloatArray], holdout: LoggedRecommendations, values: FloatArray
) -> dict[str, dict[str, float]]:
    return {
        name: {**estimates(policy, holdout.log, values), **_answer_rates(policy, holdout)}
        for name, policy in policies.items()
    }


def _answer_rates(policy: FloatArray, holdout: LoggedRecommendations) -> dict[str, float]:
    """Return click rate and satisfaction (helpful of all who said so), which may move apart; self-normalised."""
    helpful, rated = holdout.helpful.astype(np.float64), (holdout.helpful | holdout.not_helpful).astype(np.float64)
    asked = snips(policy, holdout.log, rated)
    return {
        "click_rate": snips(policy, holdout.log, holdout.clicked.astype(np.float64)),
        "satisfaction": snips(policy, holdout.log, helpful) / asked if asked > 0.0 else float("nan"),
    }


def _logged_report(holdout: LoggedRecommendations) -> dict[str, float]:
    rated = int((holdout.helpful | holdout.not_helpful).sum())
    return {
        "click_rate": float(holdout.clicked.mean()),
        "satisfaction": float(holdout.helpful.sum()) / rated if rated else float("nan"),
        # Reported, never judged: what users did without answering.
        "unanswered_views": float(holdout.unanswered.mean()),
        "time_on_page_known": float(np.isfinite(holdout.page_seconds).mean()),
    }
