"""Candidates and evidence for goals: the probability that a goal is met, judged by its Brier score.

The headline is the mean squared error of the probability, which is an average of one number a row (so its intervals
draw users) and measures order and calibration at once. The area under the ROC curve stands beside it and has to beat every
trivial rule too: always saying yes can win the F1 score, and a stale base rate can lose the Brier score to anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt

from modelkit.interface import Runtime
from modelkit.manifest import FEATURES
from modelkit.training.interface import Candidate, FitContext, Snapshot
from modelkit.training.splits import clusters_of
from modelkit.training.validation import CANDIDATE, CHAMPION, Check, Evidence
from models.goal.features import GOAL_FEATURES
from models.goal.gate import GATE
from models.goal.runtime import FeatureNotes, GoalBaseline, base_rates
from models.goal.training.examples import HOLDOUT, KNOWN_BEFORE_HOLDOUT, TRAIN, VALIDATION, GoalExamples, goal_examples
from models.goal.training.forest import GoalFit, export_fit, fit_forest, fit_lightgbm, with_calibration
from models.goal.training.reports import (
    PERMUTED_ROWS,
    area,
    best_threshold,
    brier_rows,
    importance_reports,
    permutation_importances,
    reports_of,
)

FloatArray = npt.NDArray[np.float64]

MOST_TRAIN_ROWS = 24_000
GOLDEN_ROWS = 16
KINDS = ("budget", "savings", "graded")
FEWEST_OF_A_KIND = 20
PRIOR_GOALS = 2.0  # how many average goals a user's own past is mixed with
DEFAULT_THRESHOLD = 0.5
IMPORTANCES = "importances"
SLICE_MARGIN = 0.02
FEWEST_IN_SLICE = 30


class GoalTrainer:
    """The goal trainer."""

    model_type = "goal"
    policy = GATE.policy

    def prepare(self, snapshot: Snapshot, *, seed: int) -> GoalExamples:
        """Return goals with known outcome at moments before their end.

        Raises:
            NotEnoughHistoryError: when too few of them can be put into an order of time.
        """
        return goal_examples(snapshot, seed=seed)

    def samples(self, examples: GoalExamples) -> int:
        """Return the number of rows that are used."""
        return int(examples.of(*KNOWN_BEFORE_HOLDOUT, HOLDOUT).users.size)

    def fit(self, examples: GoalExamples, context: FitContext) -> Sequence[Candidate]:
        """Return forest and LightGBM: selected by what was fitted before the validation part, then fitted on all that was known before the holdout."""
        train = examples.of(TRAIN).drawn(MOST_TRAIN_ROWS, seed=context.seed)
        both = examples.of(*KNOWN_BEFORE_HOLDOUT).drawn(MOST_TRAIN_ROWS, seed=context.seed)
        validation = examples.of(VALIDATION)
        candidates = []
        for step, (name, fit) in enumerate((("random_forest", fit_forest), ("lightgbm", fit_lightgbm))):
            context.progress("fitting_goal_models", step, 2, None)
            before = with_calibration(GoalFit(model=fit(train, seed=context.seed)), validation)
            final = replace(before, model=fit(both, seed=context.seed))
            candidates.append(_candidate(name, final, selected=before, validation=validation))
        return candidates

    def evaluate(self, examples: GoalExamples, *, candidate: Runtime, champion: Runtime | None, seed: int) -> Evidence:
        """Return the squared error of each probability on the holdout, with the checks and explanations beside it."""
        holdout = examples.of(HOLDOUT)
        trivial = trivial_probabilities(holdout, examples.of(*KNOWN_BEFORE_HOLDOUT))
        runtimes = {CANDIDATE: candidate} | ({CHAMPION: champion} if champion is not None else {})
        predicted = {name: probabilities_of(runtime, holdout) for name, runtime in runtimes.items()} | trivial
        rows = {name: brier_rows(probabilities, holdout.achieved) for name, probabilities in predicted.items()}
        thresholds = {name: _threshold(runtime) for name, runtime in runtimes.items()}
        reports = {
            name: reports_of(probabilities, holdout.achieved, threshold=thresholds.get(name, DEFAULT_THRESHOLD))
            for name, probabilities in predicted.items()
        }
        importances = {name: _importances(runtime, holdout, seed=seed) for name, runtime in runtimes.items()}
        return Evidence(
            metric=GATE.metric.name, higher_is_better=GATE.metric.higher_is_better, clusters=clusters_of(holdout.users), rows=rows, baselines=tuple(trivial),
            checks=[_ranking_check(predicted, trivial, holdout), *_slice_checks(rows, holdout)],
            reports=reports | importance_reports(importances[CANDIDATE], importances.get(CHAMPION, {})),
        )  # fmt: skip


def _candidate(name: str, fit: GoalFit, *, selected: GoalFit, validation: GoalExamples) -> Candidate:
    """Return the final fit; score and threshold are those of the fit that had not seen the validation rows."""
    predicted = selected.probabilities(validation.features)
    golden = validation.features[:: max(1, len(validation.features) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    # A typical user of today: the newest rows that the final fit has seen.
    reference = np.median(validation.features, axis=0).astype(np.float64).tolist()
    importances = {
        feature: round(float(value), 6) for feature, value in zip(GOAL_FEATURES, fit.importances(), strict=True)
    }
    return Candidate(
        name=name, model=export_fit(fit), feature_names=GOAL_FEATURES, golden_inputs=golden,
        expected=fit.probabilities(golden)[:, None].astype(np.float32),
        validation_score=-float(np.mean(brier_rows(predicted, validation.achieved))),
        parameters={
            "family": name, "threshold": best_threshold(predicted, validation.achieved), IMPORTANCES: importances,
            "calibration": fit.calibration._asdict() if fit.calibration else None,
        },
        files={FEATURES: msgspec.json.encode(FeatureNotes(reference=reference))},
    )  # fmt: skip


def probabilities_of(runtime: Runtime, examples: GoalExamples) -> FloatArray:
    """Return a version's probabilities, (n,)."""
    return runtime.scores(examples.features)[:, 0].astype(np.float64)


def trivial_probabilities(judged: GoalExamples, known: GoalExamples) -> dict[str, FloatArray]:
    """Return the forecasts that need no learning, by name, (n,) each.

    The base rate of the goal's kind; always yes; the rules of version 0 at that rate (a budget that is spent is lost); and
    the user's own record mixed with the rate.
    """
    rates = rates_of(known)
    base = base_rates(judged.features, GoalBaseline(base_rate=rates.base_rate, by_kind=rates.by_kind))
    plain = _plain_rates(judged, rates)
    past, share = judged.column("past_goals"), judged.column("past_achieved_share")
    return {
        "base_rate": plain,
        "always_yes": np.ones(judged.users.size),
        "rules_of_version_0": base[:, 0].astype(np.float64),
        "own_record": (past * share + PRIOR_GOALS * plain) / (past + PRIOR_GOALS),
    }


def rates_of(known: GoalExamples) -> GoalBaseline:
    """Return the share of goals that were achieved, over all and by kind where there are enough of one."""
    by_kind = {}
    for kind in KINDS:
        rows = known.column(f"goal_is_{kind}") > 0.0
        if rows.sum() >= FEWEST_OF_A_KIND:
            by_kind[kind] = float(known.achieved[rows].mean())
    return GoalBaseline(base_rate=float(known.achieved.mean()), by_kind=by_kind)


def _plain_rates(judged: GoalExamples, rates: GoalBaseline) -> FloatArray:
    plain = np.full(judged.users.size, rates.base_rate)
    for kind, rate in rates.by_kind.items():
        plain[judged.column(f"goal_is_{kind}") > 0.0] = rate
    return plain


def _threshold(runtime: Runtime) -> float:
    return float(runtime.manifest.parameters.get("threshold", DEFAULT_THRESHOLD))


def _importances(runtime: Runtime, holdout: GoalExamples, *, seed: int) -> dict[str, FloatArray]:
    """Return a version's importances: by permutation on the holdout, and by impurity as its own fit counted them."""
    drawn = holdout.drawn(PERMUTED_ROWS, seed=seed)
    found = {
        "permutation": permutation_importances(
            lambda rows: runtime.scores(rows)[:, 0].astype(np.float64), drawn.features, drawn.achieved, seed=seed
        )
    }
    impurity: Mapping[str, float] = runtime.manifest.parameters.get(IMPORTANCES, {})
    if impurity:
        found["impurity"] = np.array([impurity.get(feature, 0.0) for feature in GOAL_FEATURES])
    return found


def _ranking_check(
    predicted: Mapping[str, FloatArray], trivial: Mapping[str, FloatArray], holdout: GoalExamples
) -> Check:  # fmt: skip
    ours = area(predicted[CANDIDATE], holdout.achieved)
    areas = {name: area(probabilities, holdout.achieved) for name, probabilities in trivial.items()}
    best = max(areas, key=lambda name: areas[name])
    return Check(
        stage="baselines", name="ranks_better", passed=ours > areas[best],
        sentence=f"area under the ROC curve {ours:.4f}, above the {areas[best]:.4f} of {best} is asked", numbers={"auc": ours},
    )  # fmt: skip


def _slice_checks(rows: Mapping[str, FloatArray], holdout: GoalExamples) -> list[Check]:
    """Return whether the candidate is about as good as the champion early and late in goals, and for each kind of goal."""
    if CHAMPION not in rows:
        return []
    is_late = holdout.column("goal_time_share") >= 0.5  # noqa: PLR2004 - half of the goal's time
    slices = {"early": ~is_late, "late": is_late}
    slices |= {f"{kind}_goals": holdout.column(f"goal_is_{kind}") > 0.0 for kind in KINDS}
    checks = []
    for name, members in slices.items():
        if np.unique(holdout.users[members]).size < FEWEST_IN_SLICE:
            continue
        ours, theirs = float(np.mean(rows[CANDIDATE][members])), float(np.mean(rows[CHAMPION][members]))
        checks.append(Check(
            stage="slices", name=name, passed=ours <= theirs + SLICE_MARGIN,
            sentence=f"Brier score {ours:.4f} in the slice {name}, at most {theirs + SLICE_MARGIN:.4f} is asked",
        ))  # fmt: skip
    return checks
