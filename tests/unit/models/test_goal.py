"""The goal trainer: what was known when, which fits are offered, and what they are judged by."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fincoach_events.events import AnyBehavioralEvent, GoalModified
from modelkit.interface import PredictionRequest
from modelkit.training.interface import FitContext, NotEnoughHistoryError
from models.goal.features import GOAL_FEATURES
from models.goal.training.examples import (
    BETWEEN,
    HOLDOUT,
    LEFT_OUT,
    TRAIN,
    VALIDATION,
    GoalExamples,
    decided_goals,
    goal_examples,
    parts_of,
)
from models.goal.training.forest import (
    Calibration,
    GoalFit,
    calibration_that_wins,
    export_fit,
    fit_forest,
    fit_lightgbm,
)
from models.goal.training.reports import (
    best_threshold,
    calibration_error,
    importance_reports,
    permutation_importances,
    reports_of,
)
from models.goal.training.trainer import GoalTrainer, rates_of, trivial_probabilities
from schemas.vocabulary import Verdict
from stack.replay.catalogue import open_source
from stack.replay.cdnow import CdnowSource
from stack.replay.source import RawRecord
from tests.goal_factories import MONTH, budgets, goal_step, is_chance
from tests.small_sets import REAL, needs_real_sets
from tests.training_factories import FIRST_DAY, snapshot_of, transaction
from tests.training_folder import TrainingFolder, silent


@pytest.fixture(scope="module")
def examples() -> GoalExamples:
    """Give the examples of budgets that end as they were spent."""
    return goal_examples(snapshot_of(budgets(users=80, months=8)), seed=0)


# --- what was known when ------------------------------------------------------------------------------------


def test_a_goal_is_looked_at_by_its_plan_and_not_by_its_outcome() -> None:
    """The moment of a view follows from the plan: only failures come early, so the outcome's date would give it away."""
    due_at = FIRST_DAY + dt.timedelta(days=90)
    plan = {"due_at": due_at}
    early = decided_goals([goal_step("a", "g", "create", 0, **plan), goal_step("a", "g", "fail", 40, **plan)])[0]
    late = decided_goals([goal_step("a", "g", "create", 0, **plan), goal_step("a", "g", "achieve", 90, **plan)])[0]
    days = [[(moment - FIRST_DAY).days for moment in goal.moments()] for goal in (early, late)]
    assert days == [[30], [30, 60]]
    assert early.known_at == late.known_at == due_at


def test_a_goal_counts_once_and_as_it_was_first_decided() -> None:
    """A goal counts once, with its first outcome."""
    goals = decided_goals([
        goal_step("a", "twice", "create", 0), goal_step("a", "twice", "achieve", 10), goal_step("a", "twice", "fail", 11),
        goal_step("a", "gone", "create", 0), goal_step("a", "gone", "delete", 5), goal_step("a", "gone", "fail", 6),
        goal_step("a", "open", "create", 0), goal_step("a", "open", "update", 3, due_at=FIRST_DAY + dt.timedelta(days=60)),
    ])  # fmt: skip
    assert [(goal.goal_id, goal.achieved) for goal in goals] == [("twice", True)]


def test_a_goal_without_an_end_is_looked_at_after_fixed_days() -> None:
    """A goal without an end is viewed after fixed days."""
    goal = decided_goals([goal_step("a", "g", "create", 0), goal_step("a", "g", "achieve", 50)])[0]
    assert [(moment - FIRST_DAY).days for moment in goal.moments()] == [7, 30]


@given(st.data())
def test_no_later_part_was_asked_for_before_the_outcomes_of_an_earlier_one(data: st.DataObject) -> None:
    """Every outcome of an earlier part was known before the first view of a later part."""
    count = data.draw(st.integers(1, 60))
    moments = data.draw(arrays(np.float64, count, elements=st.integers(0, 40)))
    known_at = moments + data.draw(arrays(np.float64, count, elements=st.integers(1, 20)))
    parts = parts_of(moments, known_at)
    for earlier, later in ((TRAIN, VALIDATION), (TRAIN, HOLDOUT), (VALIDATION, HOLDOUT), (BETWEEN, HOLDOUT)):
        asked, known = moments[parts == later], known_at[parts == earlier]
        assert not asked.size or not known.size or known.max() < asked.min()
    assert set(parts) <= {TRAIN, VALIDATION, HOLDOUT, BETWEEN, LEFT_OUT}


def test_nothing_after_the_moment_changes_a_row() -> None:
    """A row holds nothing that happened after its moment."""
    events = budgets(users=80, months=6)
    snapshot = snapshot_of(events)
    rows = goal_examples(snapshot, seed=0)
    moment = float(np.quantile(rows.moments, 0.5))
    shuffled = [
        event
        if event.occurred_at.timestamp() < moment or isinstance(event, GoalModified)
        else transaction("0-nobody", (event.occurred_at - FIRST_DAY) / dt.timedelta(days=1), 777, user_id=event.user_id)
        for event in events
    ]
    changed = goal_examples(snapshot_of(shuffled), seed=0)
    before, after = rows.only(rows.moments <= moment), changed.only(changed.moments <= moment)
    np.testing.assert_array_equal(before.features, after.features)
    assert not np.array_equal(rows.features, changed.features)


def test_goals_whose_planned_end_has_not_come_are_left_out() -> None:
    """A goal is left out until its planned end: until then only failures are known."""
    whole = budgets(users=80, months=8)
    cut = FIRST_DAY + dt.timedelta(days=7 * MONTH + 20)
    known = [event for event in whole if event.occurred_at < cut]
    early = [goal_step(f"0-saver-{user}", f"budget-{user}-7", "fail", 7 * MONTH + 15) for user in range(80)]
    rows = goal_examples(snapshot_of([*known, *early]), seed=0)
    assert rows.known_at.max() <= (FIRST_DAY + dt.timedelta(days=7 * MONTH)).timestamp()


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([], r"0 views of goals whose end has come, 50 are needed"),
        (budgets(users=100, months=2), r"0 views of goals to select on, 30 are needed"),
        (
            budgets(users=60, months=6, outcome=lambda _share, _generator: True),
            r"among \d+ views of goals .* are 0 of one outcome",
        ),
    ],
)
def test_too_little_history_is_a_sentence(events: Sequence[AnyBehavioralEvent], reason: str) -> None:
    """Too little history is refused with a sentence that says what is missing."""
    with pytest.raises(NotEnoughHistoryError, match=reason):
        GoalTrainer().prepare(snapshot_of(events), seed=0)


# --- fits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", [fit_forest, fit_lightgbm])
@pytest.mark.parametrize("line", [None, Calibration(1.3, -0.2)])
def test_the_exported_graph_answers_the_same_probabilities(
    examples: GoalExamples, fit: Callable[..., object], line: Calibration | None
) -> None:
    """The exported graph gives the probabilities that were judged."""
    fitted = GoalFit(model=fit(examples.of(TRAIN), seed=0), calibration=line)
    session = onnxruntime.InferenceSession(export_fit(fitted))
    rows = examples.of(HOLDOUT).features
    answered = session.run(["scores"], {"features": rows})[0]
    assert answered.shape == (len(rows), 1)
    np.testing.assert_allclose(answered[:, 0], fitted.probabilities(rows), atol=2e-6)


def validation_like(examples: GoalExamples, truth: np.ndarray) -> GoalExamples:
    """Return the examples with other outcomes, one moment after the other."""
    return GoalExamples(
        features=examples.features, achieved=truth, users=examples.users, moments=np.arange(len(truth), dtype=np.float64),
        known_at=examples.known_at, part=examples.part,
    )  # fmt: skip


def test_a_calibration_is_used_only_where_it_wins_later(examples: GoalExamples) -> None:
    """A calibration is used only where it also wins on later rows; elsewhere one made the error ten times worse."""
    generator = np.random.default_rng(0)
    fit = GoalFit(model=fit_forest(examples.of(TRAIN), seed=0))
    predicted = fit.probabilities(examples.features)
    honest = validation_like(examples, generator.random(predicted.size) < predicted)
    squeezed = validation_like(examples, generator.random(predicted.size) < 0.4 + 0.2 * predicted)
    turning = np.where(np.arange(predicted.size) < predicted.size / 2, 1.0 - predicted, predicted)
    assert calibration_that_wins(fit, honest) is None
    assert calibration_that_wins(fit, validation_like(examples, generator.random(predicted.size) < turning)) is None
    line = calibration_that_wins(fit, squeezed)
    assert line is not None
    assert line.slope < 0.7


def test_selection_does_not_see_the_holdout_and_the_score_not_the_validation_rows(examples: GoalExamples) -> None:
    """The holdout takes no part in the selection, nor the validation rows in the fit that is scored."""
    first = GoalTrainer().fit(examples, FitContext(seed=3, progress=silent))
    harmed = GoalExamples(
        features=examples.features, users=examples.users, moments=examples.moments, known_at=examples.known_at,
        part=examples.part, achieved=examples.achieved ^ (examples.part == HOLDOUT),
    )  # fmt: skip
    second = GoalTrainer().fit(harmed, FitContext(seed=3, progress=silent))
    assert [item.model for item in first] == [item.model for item in second]
    assert {item.name for item in first} == {"random_forest", "lightgbm"}
    assert all(item.validation_score < 0 for item in first)


# --- measures -----------------------------------------------------------------------------------------------


def test_the_measures_are_those_of_the_books() -> None:
    """The measures have their textbook values."""
    predicted, truth = np.array([0.9, 0.8, 0.3, 0.2]), np.array([True, False, True, False])
    found = reports_of(predicted, truth, threshold=0.5)
    assert found["auc"] == pytest.approx(0.75)
    assert found["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.49 + 0.04) / 4)
    assert found["calibration_error"] == pytest.approx((0.1 + 0.8 + 0.7 + 0.2) / 4)


@given(st.integers(0, 2**32 - 1))
def test_honest_probabilities_are_well_calibrated(seed: int) -> None:
    """Honest probabilities have a small calibration error."""
    generator = np.random.default_rng(seed)
    predicted = generator.random(5_000)
    assert calibration_error(predicted, generator.random(5_000) < predicted) < 0.05


def test_of_equally_good_thresholds_the_middle_one_is_chosen() -> None:
    """Of equally good thresholds the one nearest to one half is chosen."""
    predicted, truth = np.array([0.05, 0.1, 0.9, 0.95]), np.array([False, False, True, True])
    assert best_threshold(predicted, truth) == 0.5


def test_importances_find_the_feature_that_carries_it_and_name_what_rose() -> None:
    """Importances find the feature that the model uses, and name what rose."""
    rows = np.random.default_rng(0).normal(size=(500, len(GOAL_FEATURES))).astype(np.float32)
    rises = permutation_importances(lambda given: (given[:, 4] > 0).astype(float), rows, rows[:, 4] > 0, seed=0)
    assert np.argmax(rises) == 4
    assert np.count_nonzero(rises) == 1
    reports = importance_reports({"permutation": rises}, {"permutation": -rises})
    assert next(iter(reports["importance_by_permutation"])) == GOAL_FEATURES[4]
    assert reports["rank_change_by_permutation"][GOAL_FEATURES[4]] == len(GOAL_FEATURES) - 1


def test_trivial_answers_are_what_their_names_say(examples: GoalExamples) -> None:
    """Each trivial answer is what its name says."""
    judged = examples.of(HOLDOUT)
    predicted = trivial_probabilities(judged, examples.of(TRAIN))
    rate = rates_of(examples.of(TRAIN)).by_kind["budget"]
    assert np.all(predicted["always_yes"] == 1.0)
    np.testing.assert_allclose(predicted["base_rate"], rate)
    spent = judged.column("goal_spent_share") > 1.0
    assert spent.any()
    assert np.all(predicted["rules_of_version_0"][spent] < 0.05)
    no_past = judged.column("past_goals") == 0
    np.testing.assert_allclose(predicted["own_record"][no_past], rate)


# --- whole trainings ----------------------------------------------------------------------------------------


def test_what_can_be_learned_is_served_and_explained(tmp_path: Path) -> None:
    """A risky budget gets a lower probability than a safe one, and the answer says why."""
    training = TrainingFolder(tmp_path, "goal")
    events = budgets(users=80, months=8)
    result = training.train(events)
    assert result.verdict == Verdict.CANDIDATE_WINS, result.reasons
    reports = result.numbers["reports"]
    assert reports["candidate"]["auc"] > 0.85
    assert "goal_spent_share" in reports["importance_by_permutation"]
    assert "goal_spent_share" in reports["importance_by_impurity"]
    rows = goal_examples(snapshot_of(events), seed=0).of(HOLDOUT)
    probabilities = training.served().scores(rows.features)[:, 0]
    risky = int(np.argmin(np.where(rows.column("goal_spent_share") > 0.6, probabilities, 2.0)))
    answer = training.served().answer(rows.features[risky], PredictionRequest(as_of=FIRST_DAY)).body
    assert answer["probability"] < 0.5
    assert answer["risk_factors"]
    assert len(answer["improvement_suggestions"]) == len(answer["risk_factors"])
    again = training.train(events)
    assert again.verdict == Verdict.CHAMPION_KEPT


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_chance_decides_the_champion_is_kept(tmp_path: Path, seed: int) -> None:
    """Where chance decides the outcomes the champion is kept."""
    training = TrainingFolder(tmp_path, "goal")
    before = training.champion
    result = training.train(budgets(users=80, months=6, outcome=is_chance, seed=seed), seed=seed)
    assert result.verdict == Verdict.CHAMPION_KEPT
    assert any(reason.startswith("baselines:") for reason in result.reasons)
    assert training.champion == before


def test_the_same_snapshot_and_seed_give_the_same_artifact(tmp_path: Path) -> None:
    """The same snapshot and seed give the same artifact."""
    events = budgets(users=60, months=6)
    artifacts = []
    for name in ("one", "other"):
        training = TrainingFolder(tmp_path / name, "goal")
        assert training.train(events).verdict == Verdict.CANDIDATE_WINS
        artifacts.append(training.served().manifest.files)
    for part in ("model.onnx", "features.json", "golden.json"):
        assert artifacts[0][part] == artifacts[1][part]


def test_real_budgets_are_predicted_better_than_by_rule(tmp_path: Path) -> None:
    """Real budgets of CDNOW's customers are predicted better than by rule."""
    events = [item for item in CdnowSource(customers=2_500).events() if not isinstance(item, RawRecord)]
    result = TrainingFolder(tmp_path, "goal").train(events)
    assert result.verdict == Verdict.CANDIDATE_WINS, result.reasons
    reports = result.numbers["reports"]
    assert reports["candidate"]["auc"] > max(0.75, reports["rules_of_version_0"]["auc"])
    assert result.comparison is not None
    assert result.comparison.candidate < 0.9 * (result.comparison.baseline or 0.0)


@needs_real_sets
def test_real_students_are_predicted_across_cohorts(tmp_path: Path) -> None:
    """Students' goals, months long and graded, are predicted across cohorts."""
    events = [item for item in open_source("oulad", data=REAL).events() if not isinstance(item, RawRecord)]
    result = TrainingFolder(tmp_path, "goal").train(events)
    assert result.verdict == Verdict.CANDIDATE_WINS, result.reasons
    assert result.numbers["reports"]["candidate"]["auc"] > 0.8
