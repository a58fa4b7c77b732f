"""What each of the four runtimes answers, with a small graph of its own."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np
import pytest

from modelkit.bandit import Policy, Statistics
from modelkit.features import CATEGORIES, fold
from modelkit.interface import PredictionRequest
from modelkit.manifest import GOLDEN, PARAMETERS, build_artifact, golden_file
from modelkit.registry import definition_of, runtime_for
from modelkit.scoring import ScoringRuntime
from modelkit.version_zero import baseline_artifact
from models.goal.features import GOAL_FEATURES
from models.goal.runtime import RISKS, FeatureNotes, GoalBaseline, base_rates
from models.recommendation.actions import DEFAULT_ACTION_SET, RECOMMENDATION_ACTIONS
from models.recommendation.runtime import BanditValues, RecommendationRuntime, bandit_context
from models.segmentation.features import SEGMENTATION_FEATURES
from models.segmentation.runtime import SEGMENT_NAMES, quantile_bands, rfm_bands
from models.spending.features import SPENDING_FEATURES
from models.spending.runtime import Calibration
from schemas.errors import ArtifactRejectedError, InvalidMessageError
from tests.unit.models.samples import CREATED_AT, KEY, goal, learned, manifest, opened, transaction
from tests.unit.models.versions import AS_OF, PROFILES, RECOMMENDATION, REQUEST, Floats, learned_artifact, user, weights


def recommendation(policy: Policy, drafted_weights: Floats | None = None) -> ScoringRuntime:
    """Return a learned recommendation version with a policy."""
    parameters = {"policy": msgspec.to_builtins(policy)}
    given = weights("recommendation", 5) if drafted_weights is None else drafted_weights
    drafted = manifest("recommendation", **RECOMMENDATION, parameters=parameters)
    return RecommendationRuntime.from_artifact(opened(learned(drafted, given)))


@pytest.mark.parametrize("kind", ["softmax", "epsilon_greedy", "uniform"])
def test_propensities_are_exact_and_drawn_from(kind: str) -> None:
    """Propensities are exact, and actions are drawn with them."""
    runtime = recommendation(Policy(kind=kind))  # type: ignore[arg-type]
    row = runtime.features(user(), REQUEST)
    grid = (np.arange(1_000) + 0.5) / 1_000
    answers = [runtime.answer(row, PredictionRequest(as_of=AS_OF, randomness=float(draw))) for draw in grid]
    chances = answers[0].propensities
    assert chances is not None
    assert sum(chances) == pytest.approx(1)
    assert min(chances) >= 0.02
    actions = [answer.action for answer in answers]
    shares = [actions.count(action) / 1_000 for action in range(5)]
    assert shares == pytest.approx(chances, abs=0.002)
    for answer in answers:
        assert answer.action is not None
        assert answer.propensity == chances[answer.action]
        assert answer.body["action_type"] == RECOMMENDATION_ACTIONS[answer.action]


def test_greedy_policy_prefers_the_best_action() -> None:
    """A greedy policy prefers the action with the highest learned value."""
    best = np.zeros((35, 5), dtype=np.float32)
    best[0, 3] = 1
    runtime = recommendation(Policy(kind="epsilon_greedy", epsilon=0.1), best)
    answer = runtime.answer(runtime.features(None, REQUEST), REQUEST)
    assert answer.action == 3
    assert answer.propensity == pytest.approx(0.02 + 0.9 * 0.92)


def test_recommendation_has_the_shape_of_the_host() -> None:
    """A recommendation has the host's shape."""
    runtime = runtime_for(opened(baseline_artifact(definition_of("recommendation"), KEY, CREATED_AT)))
    answer = runtime.answer(runtime.features(user(), REQUEST), REQUEST)
    assert set(answer.body) == {
        "action_id",
        "action_type",
        "recommendation",
        "confidence",
        "state_summary",
        "generated_at",
    }
    assert answer.propensities == (0.2,) * 5
    assert answer.body["generated_at"] == AS_OF.isoformat()
    assert answer.action_set == DEFAULT_ACTION_SET


@pytest.mark.parametrize("fields", [{"actions": ()}, {"action_set": None}, {"propensity_floor": 0.3}])
def test_recommendation_without_its_actions_is_rejected(fields: dict[str, object]) -> None:
    """A recommendation version without its set of actions is rejected."""
    artifact = learned(manifest("recommendation", **{**RECOMMENDATION, **fields}), weights("recommendation", 5))
    with pytest.raises(ArtifactRejectedError):
        runtime_for(opened(artifact))


def test_other_context_brings_its_own_row() -> None:
    """A version over another context takes the row from the request."""
    drafted = manifest(
        "recommendation",
        context_schema="steps",
        action_set="walks",
        actions=("active", "none"),
        feature_names=("steps_before", "hour"),
    )
    runtime = runtime_for(opened(learned(drafted, np.eye(2, dtype=np.float32))))
    with pytest.raises(InvalidMessageError, match="steps"):
        runtime.features(None, REQUEST)
    answer = runtime.answer(np.array([1.0, 2.0], dtype=np.float32), REQUEST)
    assert answer.body["recommendation"] in {"active", "none"}


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_bandit_is_served_from_its_statistics(alpha: float) -> None:
    """The served bandit answers from the statistics that were judged."""
    center, scale = np.zeros(35, dtype=np.float32), np.full(35, 1_000.0, dtype=np.float32)
    rows = np.zeros((40, 35), dtype=np.float32)
    rows[:, 0] = 1_000
    seen = Statistics.empty(5, 36).updated(
        bandit_context(rows, center, scale), np.arange(40) % 5, (np.arange(40) % 5 == 2).astype(np.float64)
    )
    parameters = BanditValues.of(seen, center, scale, alpha=alpha)
    files = {PARAMETERS: msgspec.json.encode(parameters)}
    drafted = manifest(
        "recommendation", **RECOMMENDATION, parameters={"policy": {"kind": "epsilon_greedy", "epsilon": 0.0}}
    )
    outputs = RecommendationRuntime.scorer(drafted, files)(rows[:2])
    files[GOLDEN] = golden_file(rows[:2].tolist(), outputs.tolist())
    runtime = runtime_for(opened(build_artifact(drafted, files, KEY)))
    assert runtime.answer(runtime.features(None, REQUEST), REQUEST).action == 2


def test_nearest_segment_is_answered() -> None:
    """A user is in the nearest segment."""
    runtime = runtime_for(opened(learned_artifact("segmentation")))
    row = runtime.features(user(), REQUEST)
    distances = runtime.scores(row[None, :])[0]
    body = runtime.answer(row, REQUEST).body
    assert body["segment_id"] == PROFILES[int(distances.argmin())].segment_id
    assert 0.5 <= body["confidence"] <= 1


def test_segment_is_described_by_its_profile() -> None:
    """The answer describes a segment by what sets it apart."""
    toward_first = np.zeros((15, 2), dtype=np.float32)
    toward_first[1, 1] = 1
    artifact = learned(manifest("segmentation"), toward_first, profiles_json=msgspec.json.encode(PROFILES))
    runtime = runtime_for(opened(artifact))
    body = runtime.answer(runtime.features(user(), REQUEST), REQUEST).body
    assert body["segment_name"] == "Conservative Savers"
    assert body["characteristics"] == {"frequency": 3.0}
    assert body["peer_comparison"] == {"segment_share": 0.6, "frequency": 3.5}
    assert body["description"] == ["frequency typically 3"]
    assert body["compared_features"] == {"frequency": {"value": 10.0, "segment_median": 3.0, "spreads_away": 3.5}}


def test_profiles_must_fit_the_columns() -> None:
    """Profiles must be as many as the columns of the distances."""
    artifact = learned(
        manifest("segmentation"),
        weights("segmentation", 3),
        profiles_json=msgspec.json.encode(PROFILES),
    )
    with pytest.raises(ArtifactRejectedError, match="2 profiles for 3"):
        runtime_for(opened(artifact))


def test_baseline_bands_follow_value() -> None:
    """The bands of the baseline are quantiles of value."""
    rows = np.zeros((100, len(SEGMENTATION_FEATURES)), dtype=np.float32)
    rows[:, 0] = np.arange(100, 0, -1)
    rows[:, 1] = np.arange(100)
    rows[:, 2] = np.arange(100)
    bands = rfm_bands(rows, quantile_bands(rows)).argmin(axis=1)
    assert (np.diff(bands) >= 0).all()
    assert np.bincount(bands, minlength=5).min() >= 10


def test_version_0_knows_the_segments_of_the_host() -> None:
    """Version 0 answers with the host's own segments."""
    runtime = runtime_for(opened(baseline_artifact(definition_of("segmentation"), KEY, CREATED_AT)))
    names = {runtime.answer(row, REQUEST).body["segment_name"] for row in spread_of_users()}
    assert names <= set(SEGMENT_NAMES)
    assert len(names) == 5


def spread_of_users() -> Floats:
    """Return rows from the least to the most active user."""
    rows = np.zeros((40, len(SEGMENTATION_FEATURES)), dtype=np.float32)
    rows[:, 0] = np.linspace(365, 0, 40)
    rows[:, 1] = np.linspace(0, 80, 40)
    rows[:, 2] = np.linspace(0, 150, 40)
    return rows


def spending(calibration: Calibration | None = None, **fields: object) -> ScoringRuntime:
    """Return a learned version that forecasts the last week, and half of it for the others."""
    columns = len(fields.get("parameters", {}).get("outputs", (1, 2, 3, 4)))  # type: ignore[attr-defined]
    last_week = np.zeros((len(SPENDING_FEATURES), columns), dtype=np.float32)
    last_week[51] = [1.0] + [0.5] * (columns - 1)
    files = {} if calibration is None else {"calibration_json": msgspec.json.encode(calibration)}
    return (
        definition_of("spending")
        .runtime.load()
        .from_artifact(opened(learned(manifest("spending", **fields), last_week, **files)))
    )


def test_spending_has_the_shape_of_the_host() -> None:
    """Totals and categories add up to the forecast, in the host's shape."""
    runtime = spending()
    body = runtime.answer(runtime.features(user(), REQUEST), REQUEST).body
    assert body["prediction_date"] == "2026-03-31T12:00:00+00:00"
    assert (body["total_predicted"], body["total_predicted_4_weeks"]) == (70.0, 175.0)
    assert body["weekly_predictions"] == [70.0, 35.0, 35.0, 35.0]
    assert body["category_predictions"] == {"bills": 70.0}
    assert body["confidence_intervals"] == {}
    assert body["interval_coverage"] is None


def test_intervals_come_from_the_calibration_in_units_of_the_scale() -> None:
    """The width of an interval grows with the user's scale."""
    runtime = spending(
        Calibration(coverage=0.8, lower=[-1, -2, -3, -4], upper=[1, 2, 3, 4], lower_total=-5, upper_total=5)
    )
    row = runtime.features(user(), REQUEST)
    scale = float(row[SPENDING_FEATURES.index("scale")])
    body = runtime.answer(row, REQUEST).body
    intervals = body["confidence_intervals"]
    assert body["interval_coverage"] == 0.8
    assert intervals["next_week"] == pytest.approx([70 - scale, 70 + scale], abs=0.01)
    assert intervals["week_4"] == pytest.approx([0, 35 + 4 * scale], abs=0.01)
    assert intervals["four_weeks"] == pytest.approx([175 - 5 * scale, 175 + 5 * scale], abs=0.01)


def test_intervals_may_come_from_the_model() -> None:
    """Quantiles that a model forecasts are its intervals."""
    bounds = tuple(f"{side}_{name}" for name in (1, 2, 3, 4, "total") for side in ("lower", "upper"))
    outputs = ("mean_1", "mean_2", "mean_3", "mean_4", *bounds)
    runtime = spending(parameters={"outputs": list(outputs)})
    body = runtime.answer(runtime.features(user(), REQUEST), REQUEST).body
    intervals = body["confidence_intervals"]
    assert body["interval_coverage"] == 0.8
    assert intervals["next_week"] == intervals["week_1"] == [35.0, 35.0]
    assert intervals["four_weeks"] == [35.0, 35.0]


def test_outputs_must_name_the_four_means() -> None:
    """The outputs must name the four means."""
    with pytest.raises(ArtifactRejectedError, match="four means"):
        spending(parameters={"outputs": ["mean_1", "mean_2", "mean_3", "median_4"]})


def test_negative_forecasts_are_answered_as_nothing() -> None:
    """A negative forecast is answered as 0."""
    last_week = np.zeros((len(SPENDING_FEATURES), 4), dtype=np.float32)
    last_week[51] = -1
    runtime = runtime_for(opened(learned(manifest("spending"), last_week)))
    assert runtime.answer(runtime.features(user(), REQUEST), REQUEST).body["total_predicted_4_weeks"] == 0


def test_version_0_forecasts_the_mean_of_26_weeks() -> None:
    """Version 0 forecasts the mean of 26 weeks, the baseline that trainers judge against."""
    runtime = runtime_for(opened(baseline_artifact(definition_of("spending"), KEY, CREATED_AT)))
    body = runtime.answer(runtime.features(user(), REQUEST), REQUEST).body
    assert body["total_predicted"] == pytest.approx(700 / 26, abs=0.01)
    assert set(body["category_predictions"]) <= set(CATEGORIES)


def goal_column(name: str) -> int:
    """Return the column of a goal feature."""
    return GOAL_FEATURES.index(name)


def test_goal_names_the_risks_by_which_the_model_lowers_the_chance() -> None:
    """The risks are those by which the answering model lowers the chance."""
    slopes = np.zeros((len(GOAL_FEATURES), 1), dtype=np.float32)
    slopes[goal_column("goal_is_budget")] = 0.9
    slopes[goal_column("goal_spent_share")] = -0.2
    slopes[goal_column("goal_progress")] = 0.1
    notes = msgspec.json.encode(FeatureNotes(reference=[0.0] * len(GOAL_FEATURES)))
    runtime = runtime_for(opened(learned(manifest("goal"), slopes, features_json=notes)))
    state = fold(user(), transaction(AS_OF, 50))
    request = PredictionRequest(as_of=AS_OF, goal_id="g1")
    body = runtime.answer(runtime.features(state, request), request).body
    assert body["goal_id"] == "g1"
    assert body["probability"] == pytest.approx(0.7)
    assert body["risk_factors"] == [{"feature": "goal_spent_share", "factor": RISKS["goal_spent_share"][0]}]
    assert body["improvement_suggestions"] == [RISKS["goal_spent_share"][1]]
    assert body["expected_completion_date"] == "2026-04-09T12:00:00+00:00"


@pytest.mark.parametrize("files", [{}, {"features_json": b'{"names": [], "types": []}'}])
def test_goal_without_a_reference_names_no_risks(files: dict[str, bytes]) -> None:
    """Without a reference row the answer names no risks."""
    runtime = runtime_for(opened(learned(manifest("goal"), weights("goal", 1), **files)))
    body = runtime.answer(runtime.features(user(), REQUEST), REQUEST).body
    assert body["risk_factors"] == []
    assert 0 <= body["probability"] <= 1


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.5, "2026-04-10T12:00:00+00:00"), (0.001, None), (1.0, "2026-05-10T12:00:00+00:00")]
)
def test_completion_follows_the_pace(progress: float, expected: str | None) -> None:
    """The expected date follows the pace so far."""
    runtime = runtime_for(opened(learned_artifact("goal")))
    start = AS_OF - dt.timedelta(days=10)
    state = fold(None, goal(start, "create", due_at=start + dt.timedelta(days=50), progress=progress))
    body = runtime.answer(runtime.features(state, REQUEST), REQUEST).body
    assert body["expected_completion_date"] == expected


def test_malformed_goal_is_an_invalid_request() -> None:
    """A malformed goal is an invalid request, not a fault of the replica."""
    runtime = runtime_for(opened(learned_artifact("goal")))
    with pytest.raises(InvalidMessageError, match="goal"):
        runtime.features(None, PredictionRequest(as_of=AS_OF, goal={"target_minor": "much"}))


@pytest.mark.parametrize("reference", [[0.0], ["x"] * 61])
def test_reference_must_fit_the_row(reference: list[object]) -> None:
    """The reference row must have the columns of the model's row."""
    notes = msgspec.json.encode({"reference": reference})
    artifact = learned(manifest("goal"), weights("goal", 1), features_json=notes)
    with pytest.raises(ArtifactRejectedError):
        runtime_for(opened(artifact))


def test_goal_version_answers_one_probability() -> None:
    """A goal version answers one probability, that of achieving the goal."""
    with pytest.raises(ArtifactRejectedError, match="output_column"):
        runtime_for(opened(learned(manifest("goal"), weights("goal", 2))))


def test_goal_baseline_follows_its_rules() -> None:
    """Version 0 follows its rules: a budget that is spent is lost."""
    rows = np.zeros((5, len(GOAL_FEATURES)), dtype=np.float32)
    rows[1:4, goal_column("goal_is_budget")] = 1
    rows[2, goal_column("goal_projected_share")] = 1.5
    rows[3, goal_column("goal_spent_share")] = 1.1
    rows[4, goal_column("goal_work_missed_share")] = 0.8
    chances = base_rates(rows, GoalBaseline(base_rate=0.6, by_kind={"budget": 0.8}))
    assert chances[:, 0].tolist() == pytest.approx([0.6, 0.8, 0.4, 0.02, 0.3])
