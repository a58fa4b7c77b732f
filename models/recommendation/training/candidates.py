"""The candidates of a run: three ways to train CQL on, and the linear bandit that each of them has to beat.

Each is fitted on the train part, valued on the validation part, and fitted once more on both before it is packed. All
serve the same policy over their values, so that what is compared is what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from modelkit.bandit import LinearValues, Policy, Statistics, propensities
from modelkit.features import STATE_FEATURES
from modelkit.manifest import PARAMETERS
from modelkit.training.interface import Candidate, FitContext
from modelkit.training.off_policy import RewardModel, dr_terms
from models.recommendation.runtime import BanditValues, RecommendationSettings, bandit_context
from models.recommendation.training.cql import (
    BATCH,
    FitPlan,
    Fitted,
    ValueNetwork,
    checkpoint_of,
    export_network,
    fit_cql,
    network_in,
    values_of,
)
from models.recommendation.training.examples import (
    ACTION_SET,
    ACTIONS,
    ARMS,
    CONTEXT_SCHEMA,
    LoggedRecommendations,
    RecommendationExamples,
)

Float32Array = npt.NDArray[np.float32]

PROPENSITY_FLOOR = 0.02
# Greedy earns .005 more and leaves the next judge a fifth fewer effective samples.
POLICY = Policy(kind="softmax", temperature=0.03)
PASSES = 10  # over the rows, when no validation part ends the fit
LONGEST_PASSES = 100
FEWEST_STEPS, MOST_STEPS = 60, 2_000
FULL_RATE = 1e-3
INCREMENTAL_RATES = (1e-4, 1e-3)
NEW_SHARE = 0.5
RIDGE = 10.0
GOLDEN_ROWS = 16
MANIFEST: Mapping[str, Any] = {
    "action_set": ACTION_SET,
    "actions": ACTIONS,
    "context_schema": CONTEXT_SCHEMA,
    "propensity_floor": PROPENSITY_FLOOR,
}


class CqlFits(NamedTuple):
    """The network that validation may judge, the one that is served, and the batches of the latter."""

    judged: ValueNetwork
    served: ValueNetwork
    steps: int


@dataclass(frozen=True, kw_only=True)
class CqlRecipe:
    """One way to train: from nothing, or onwards from the champion's network with half of each batch new."""

    name: str
    learning_rate: float
    start: ValueNetwork | None = None

    def fit(self, examples: RecommendationExamples, context: FitContext, *, gamma: float) -> CqlFits:
        """Return the network of the train part, and the one of everything before the holdout, fitted for as many passes."""
        train, known = examples.train, examples.known
        watched = examples.validation if gamma == 0.0 else None
        most = self._steps(train, LONGEST_PASSES if watched is not None else PASSES)
        first = self._fit(train, context, steps=most, gamma=gamma, watched=watched)
        steps = max(1, round(first.steps * len(known) / len(train)))
        return CqlFits(first.network, self._fit(known, context, steps=steps, gamma=gamma).network, steps)

    def _steps(self, rows: LoggedRecommendations, passes: int) -> int:
        seen = len(rows) if self.start is None else round(int(rows.is_new.sum()) / NEW_SHARE)
        return min(max(passes * seen // BATCH, FEWEST_STEPS), MOST_STEPS)

    def _fit(
        self,
        rows: LoggedRecommendations,
        context: FitContext,
        *,
        steps: int,
        gamma: float,
        watched: LoggedRecommendations | None = None,
    ) -> Fitted:
        plan = FitPlan(
            steps=steps, learning_rate=self.learning_rate, seed=context.seed, gamma=gamma,
            new_share=None if self.start is None else NEW_SHARE,
        )  # fmt: skip
        return fit_cql(rows, plan, start=self.start, watched=watched, progress=_phase(context, self.name))


def candidates_of(
    examples: RecommendationExamples, context: FitContext, *, gamma: float, weights: Mapping[str, Mapping[str, float]]
) -> list[Candidate]:
    """Return the bandit and one CQL candidate per recipe, the full retrain first; ``weights`` of rewards are noted in each."""
    judge = _ValidationJudge(examples)
    noted = {**weights, "gamma": gamma}
    recipes = [CqlRecipe(name="cql_full", learning_rate=FULL_RATE), *_incremental(context)]
    found = []
    for recipe in recipes:
        fits = recipe.fit(examples, context, gamma=gamma)
        score = judge.score(values_of(fits.judged, examples.validation.features))
        found.append(_cql_candidate(recipe, fits, examples, score=score, noted=noted))
    return [*found, _bandit_candidate(examples, judge, noted=noted, checkpoint=found[0].checkpoint)]


def _incremental(context: FitContext) -> list[CqlRecipe]:
    start = network_in(context.champion.checkpoint) if context.champion else None
    if start is None:
        return []
    return [CqlRecipe(name=f"cql_incremental_{rate:g}", learning_rate=rate, start=start) for rate in INCREMENTAL_RATES]


def _phase(context: FitContext, name: str) -> Callable[[int, int, float], None]:
    def report(step: int, steps: int, loss: float) -> None:
        context.progress(name, step, steps, loss)

    return report


class _ValidationJudge:
    """Values policies on the validation part, doubly robust with a reward model of the train part."""

    def __init__(self, examples: RecommendationExamples) -> None:
        train, self._rows = examples.train, examples.validation
        model = RewardModel(train.features, train.log, actions=ARMS)
        self._expected = model.values(self._rows.features)

    def score(self, values: npt.NDArray[np.floating]) -> float:
        """Return the expected reward of the served policy over ``values`` (n, k)."""
        policy = propensities(values, POLICY, floor=PROPENSITY_FLOOR)
        return float(np.mean(dr_terms(policy, self._rows.log, self._expected)))


def _cql_candidate(
    recipe: CqlRecipe,
    fits: CqlFits,
    examples: RecommendationExamples,
    *,
    score: float,
    noted: Mapping[str, Any],
) -> Candidate:
    golden = _golden(examples)
    return Candidate(
        name=recipe.name, model=export_network(fits.served), feature_names=STATE_FEATURES, golden_inputs=golden,
        expected=values_of(fits.served, golden), validation_score=score, manifest=MANIFEST, checkpoint=checkpoint_of(fits.served),
        parameters={**_settings(), "family": "cql", "fine_tuned": recipe.start is not None, "learning_rate": recipe.learning_rate, "steps": fits.steps, **noted},
    )  # fmt: skip


def fit_bandit(rows: LoggedRecommendations) -> BanditValues:
    """Return the statistics of ``rows`` with the standardisation they stand on: what the runtime serves."""
    center = np.median(rows.features, axis=0).astype(np.float32)
    spread = rows.features.std(axis=0)
    scale = np.where(spread > 1e-3, spread, 1.0).astype(np.float32)  # noqa: PLR2004 - a column that hardly varies
    contexts = bandit_context(rows.features, center, scale)
    statistics = Statistics.empty(ARMS, contexts.shape[1]).updated(contexts, rows.log.actions, rows.taught)
    return BanditValues.of(statistics, center, scale, ridge=RIDGE)


def bandit_values(bandit: BanditValues, features: Float32Array) -> Float32Array:
    """Return the bandit's expected reward of each action for rows (n, 35), shape (n, 5)."""
    solved = LinearValues(Statistics(np.array(bandit.A), np.array(bandit.b)), ridge=bandit.ridge)
    center, scale = np.array(bandit.center, dtype=np.float32), np.array(bandit.scale, dtype=np.float32)
    return solved.means(bandit_context(features, center, scale)).astype(np.float32)


def _bandit_candidate(
    examples: RecommendationExamples,
    judge: _ValidationJudge,
    *,
    noted: Mapping[str, Any],
    checkpoint: Mapping[str, bytes],
) -> Candidate:
    """Return the bandit; it carries the full retrain's weights, so that CQL can be trained on when the bandit is served."""
    score = judge.score(bandit_values(fit_bandit(examples.train), examples.validation.features))
    bandit, golden = fit_bandit(examples.known), _golden(examples)
    return Candidate(
        name="linear_bandit", model=None, feature_names=STATE_FEATURES, golden_inputs=golden, expected=bandit_values(bandit, golden),
        validation_score=score, manifest=MANIFEST, checkpoint=checkpoint, files={PARAMETERS: msgspec.json.encode(bandit)},
        parameters={**_settings(), "family": "linear_bandit", "ridge": RIDGE, **noted},
    )  # fmt: skip


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = msgspec.to_builtins(RecommendationSettings(policy=POLICY))
    return settings


def _golden(examples: RecommendationExamples) -> Float32Array:
    """Return rows spread over the time before the holdout."""
    known = examples.known.features
    return known[np.linspace(0, len(known) - 1, GOLDEN_ROWS).astype(np.int64)]
