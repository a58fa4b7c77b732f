"""The recommendation trainer on logged answers whose truth is known: what it learns, what it refuses, what it promotes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.bandit import propensities
from modelkit.features import STATE_FEATURES
from modelkit.manifest import Manifest, open_artifact
from modelkit.registry import runtime_for
from modelkit.training.interface import FEEDBACK_FILE, Champion, FitContext, NotEnoughHistoryError, Snapshot
from modelkit.training.snapshot_files import FEEDBACK_SCHEMA, parquet_bytes
from modelkit.training.validation import CANDIDATE, CHAMPION
from models.recommendation.runtime import BanditValues
from models.recommendation.settings import RecommendationTrainingSettings
from models.recommendation.training import TRAINER, RecommendationTrainer
from models.recommendation.training.candidates import POLICY, PROPENSITY_FLOOR
from models.recommendation.training.cql import (
    FitPlan,
    ValueNetwork,
    _next_rows,
    export_network,
    fit_cql,
    network_in,
    values_of,
)
from models.recommendation.training.evidence import effective_floor, served_policy
from models.recommendation.training.rewards import answers_within, reward_of, settled
from schemas.vocabulary import FEEDBACK_INTERACTIONS, Verdict
from tests.recommendation_factories import (
    BEGIN,
    WEIGHTS,
    FloatArray,
    Row,
    Workshop,
    contexts_of,
    examples_of,
    files_of,
    indifferent,
    liked,
    served,
    snapshot_of,
)
from trainers.running.worker import trainer_of


def context_of(champion: Champion | None = None) -> FitContext:
    """Return a fit's context without a progress report."""
    return FitContext(seed=0, progress=lambda *_: None, champion=champion)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Return an empty workshop."""
    return Workshop(tmp_path)


# ---------------------------------------------------------------- rewards


def test_kinds_of_answers_add_up_and_are_kept_within_one() -> None:
    """Answers of several kinds add up, to 1 at most."""
    assert reward_of(frozenset({"click", "helpful"}), WEIGHTS) == pytest.approx(0.6)
    assert reward_of(frozenset({"click", "implement"}), WEIGHTS) == 1.0
    assert reward_of(frozenset({"dismiss", "not_helpful"}), WEIGHTS) == -1.0


@given(st.sets(st.sampled_from(sorted(FEEDBACK_INTERACTIONS))))
def test_every_mixture_of_answers_stays_within_the_bounds(kinds: set[str]) -> None:
    """Every mixture of answers is worth between -1 and 1."""
    assert -1.0 <= reward_of(frozenset(kinds), WEIGHTS) <= 1.0


def test_silence_is_worth_nothing_and_is_no_dismissal() -> None:
    """Silence is worth 0; it is no dismissal."""
    assert reward_of(frozenset(), WEIGHTS) == 0.0
    assert reward_of(frozenset({"dismiss"}), WEIGHTS) < 0.0


def test_answers_after_the_window_and_repeats_do_not_count() -> None:
    """Answers after the window, and repeats, do not count."""
    kinds = answers_within(["click", "click", "implement"], [10.0, 20.0, 101.0], start=0.0, window_seconds=100.0)
    assert kinds == {"click"}


def test_rows_too_fresh_to_have_been_answered_are_left_out() -> None:
    """Rows too new to have been answered are left out."""
    starts, answers = np.array([0.0, 0.0, 90.0, 100.0]), np.array([10.0, np.nan, np.nan, np.nan])
    assert settled(starts, answers, end=100.0, window_seconds=1e6).tolist() == [True, True, True, False]


# ---------------------------------------------------------------- examples


def test_only_rows_that_can_be_judged_are_taken() -> None:
    """Only rows with our actions, our features and a propensity are used."""
    rows = served(300, seed=1)
    odd: list[Row] = [
        {"action_set": "items-34"}, {"reducer_version": 99}, {"propensity": None}, {"features": [1.0, 2.0]}, {"action": 7}, {"action": None},
    ]  # fmt: skip
    spoiled = [{**row, **change} for row, change in zip(rows, odd, strict=False)]
    assert TRAINER.samples(examples_of([*spoiled, *rows[len(odd) :]])) == 300 - len(odd)


def test_parts_follow_each_other_in_time() -> None:
    """The parts follow each other in time."""
    split = examples_of(served(500, seed=1)).split
    assert split.train.max() < split.validation.min() <= split.validation.max() < split.holdout.min()


@pytest.mark.parametrize("rows", [1, 150])
def test_too_few_rows_keep_the_champion_with_a_sentence(rows: int) -> None:
    """Too few rows keep the champion, with a sentence that says so."""
    with pytest.raises(
        NotEnoughHistoryError, match=rf"not enough history \({rows} recommendations .* 200 are needed\)"
    ):
        examples_of(served(rows, seed=1))


def test_snapshot_without_any_feedback_is_no_crash() -> None:
    """A snapshot without feedback keeps the champion."""
    files = files_of(served(3, seed=1)) | {FEEDBACK_FILE: parquet_bytes(FEEDBACK_SCHEMA.empty_table())}
    with pytest.raises(NotEnoughHistoryError, match="0 recommendations"):
        TRAINER.prepare(Snapshot(files, digest=""), seed=0)


def test_weights_are_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of answers are settings."""
    monkeypatch.setenv("FINCOACH_RECOMMENDATION_REWARD_WEIGHTS", '{"click": 0.9}')
    trainer = RecommendationTrainer(RecommendationTrainingSettings())
    rewards = trainer.prepare(snapshot_of(served(300, seed=1)), seed=0).rows.log.rewards
    assert set(rewards.tolist()) == {0.0, 0.9}


# ---------------------------------------------------------------- network


def test_exported_graph_answers_as_the_network_for_any_number_of_rows() -> None:
    """The exported graph answers as the network does, for any number of rows."""
    examples = examples_of(served(400, seed=2))
    network = fit_cql(examples.train, FitPlan(steps=20, learning_rate=1e-3, seed=0)).network
    session = onnxruntime.InferenceSession(export_network(network), providers=["CPUExecutionProvider"])
    for rows in (1, 57):
        features = examples.rows.features[:rows]
        (found,) = session.run(["scores"], {"features": features})
        np.testing.assert_allclose(found, values_of(network, features), atol=1e-4)


def test_extreme_features_give_finite_values() -> None:
    """Extreme features give finite values."""
    network = fit_cql(examples_of(served(300, seed=2)).train, FitPlan(steps=5, learning_rate=1e-3, seed=0)).network
    extreme = np.array([[sign * 1e30] * len(STATE_FEATURES) for sign in (1, -1)], dtype=np.float32)
    assert np.all(np.isfinite(values_of(network, extreme)))


def test_each_row_is_followed_by_the_same_users_next_one() -> None:
    """A row is followed by the same user's next row."""
    followers, ended = _next_rows(np.array([3, 5, 3, 3, 5]))
    assert followers.tolist() == [2, 4, 3, 3, 4]
    assert ended[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_delayed_rewards_are_learned_when_a_discount_is_set() -> None:
    """With a discount delayed rewards are learned."""
    rows = examples_of(served(400, seed=2)).train
    now, later = (
        fit_cql(rows, FitPlan(steps=300, learning_rate=1e-3, seed=0, gamma=gamma)).network for gamma in (0.0, 0.9)
    )
    assert float(np.abs(values_of(now, rows.features) - values_of(later, rows.features)).mean()) > 0.01


# ---------------------------------------------------------------- candidates


def test_cql_and_bandit_learn_what_users_like() -> None:
    """CQL and the bandit learn what users like."""
    examples = examples_of(served(2_500, seed=3))
    contexts = contexts_of(np.random.default_rng(99), 2_000)
    chances = liked(contexts)
    candidates = {candidate.name: candidate for candidate in TRAINER.fit(examples, context_of())}
    assert set(candidates) == {"cql_full", "linear_bandit"}
    network = network_in(candidates["cql_full"].checkpoint)
    assert network is not None
    policy = propensities(values_of(network, contexts.astype(np.float32)), POLICY, floor=PROPENSITY_FLOOR)
    earned = float((policy * chances).sum(axis=1).mean())
    assert earned > float(chances.mean(axis=0).max()) + 0.1  # better than any single action
    assert earned > 0.65 * float(chances.max(axis=1).mean())


def test_champion_with_weights_gives_two_incremental_candidates_beside_the_full_one() -> None:
    """A champion with weights gives two incremental candidates beside the full one."""
    first = examples_of(served(600, seed=4))
    (full, _) = TRAINER.fit(first, context_of())
    both = [*served(600, seed=4, is_new=False), *served(400, seed=5, first=600)]
    champion = Champion(runtime=_unused_runtime(), digest="1", checkpoint=full.checkpoint)
    found = TRAINER.fit(examples_of(both), context_of(champion))
    assert {candidate.name for candidate in found} == {
        "cql_full", "cql_incremental_0.0001", "cql_incremental_0.001", "linear_bandit",
    }  # fmt: skip
    careful, bold = (_network(found, f"cql_incremental_{rate}") for rate in ("0.0001", "0.001"))
    start, rows = network_in(full.checkpoint), first.rows.features
    assert start is not None
    moved = [float(np.abs(values_of(network, rows) - values_of(start, rows)).mean()) for network in (careful, bold)]
    assert 0.0 < moved[0] < moved[1]


def _network(found: Sequence[Any], name: str) -> ValueNetwork:
    network = network_in(next(candidate for candidate in found if candidate.name == name).checkpoint)
    assert network is not None
    return network


def _unused_runtime() -> Any:  # noqa: ANN401 - fitting looks at the checkpoint alone
    return None


def test_foreign_checkpoint_is_left_alone() -> None:
    """A checkpoint of another shape is ignored."""
    assert network_in({}) is None
    assert network_in({"weights.safetensors": b""}) is None


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    """The same seed gives the same bytes, and another seed gives others."""
    examples = examples_of(served(400, seed=6))
    once, again = (TRAINER.fit(examples, context_of()) for _ in range(2))
    assert [candidate.model for candidate in once] == [candidate.model for candidate in again]
    assert [candidate.files for candidate in once] == [candidate.files for candidate in again]
    other = TRAINER.fit(examples, FitContext(seed=1, progress=lambda *_: None))
    assert other[0].model != once[0].model


def test_every_candidate_carries_weights_from_which_cql_can_go_on() -> None:
    """Every candidate, the bandit too, carries weights from which CQL can go on."""
    found = TRAINER.fit(examples_of(served(400, seed=6)), context_of())
    assert all(network_in(candidate.checkpoint) is not None for candidate in found)


def test_bandit_is_served_from_statistics_that_hold_every_row() -> None:
    """The bandit's statistics hold every row."""
    examples = examples_of(served(400, seed=6))
    bandit = next(candidate for candidate in TRAINER.fit(examples, context_of()) if candidate.name == "linear_bandit")
    statistics = msgspec.json.decode(bandit.files["parameters.json"], type=BanditValues)
    counted = sum(A[-1][-1] for A in statistics.A)  # the constant's square, summed: rows per arm
    assert counted == len(examples.known)


# ---------------------------------------------------------------- judging


def test_policy_that_suits_users_takes_the_place_of_the_uniform_one(workshop: Workshop) -> None:
    """A policy that suits the users replaces the uniform one."""
    rows = served(2_500, seed=3)
    result = workshop.train(rows)
    assert result.verdict == Verdict.CANDIDATE_WINS, result.reasons
    assert result.artifact is not None
    assert result.checkpoint is not None
    runtime = runtime_for(open_artifact(workshop.store.get(result.artifact), workshop.key.trusted()))
    contexts = contexts_of(np.random.default_rng(98), 500)
    policy = served_policy(runtime, contexts.astype(np.float32))
    assert policy.min() >= PROPENSITY_FLOOR - 1e-12
    assert float((policy * liked(contexts)).sum(axis=1).mean()) > 1.5 * float(liked(contexts).mean())


def test_numbers_of_the_verdict_tell_clicks_and_satisfaction_apart(workshop: Workshop) -> None:
    """The verdict reports clicks and satisfaction apart."""
    result = workshop.train(served(2_500, seed=3))
    reports = result.numbers["reports"]
    assert {CANDIDATE, CHAMPION, "uniform", "best_single_action", "logged"} <= set(reports)
    assert {"ips", "snips", "dm", "dr", "dros", "effective_samples", "clipped_mass"} <= set(reports[CANDIDATE])
    for figure in ("click_rate", "satisfaction"):
        assert reports[CANDIDATE][figure] > reports["logged"][figure]


@pytest.mark.parametrize("seed", range(5))
def test_answers_that_depend_on_nothing_keep_the_champion(workshop: Workshop, seed: int) -> None:
    """Answers that depend on nothing keep the champion."""
    assert workshop.train(served(1_500, seed=100 + seed, taste=indifferent)).verdict == Verdict.CHAMPION_KEPT


def test_next_run_trains_on_from_the_promoted_weights(workshop: Workshop) -> None:
    """The next run trains on from the promoted weights."""
    rows = served(2_000, seed=3)
    first = workshop.train(rows)
    assert first.artifact is not None
    runtime = runtime_for(open_artifact(workshop.store.get(first.artifact), workshop.key.trusted()))
    more = served(800, seed=8, first=2_000, policy=lambda contexts: served_policy(runtime, contexts.astype(np.float32)))
    second = workshop.train(
        [*({**row, "is_new": False} for row in rows), *more], champion=first.artifact, checkpoint=first.checkpoint
    )
    assert {"cql_incremental_0.0001", "cql_incremental_0.001"} <= set(second.numbers["validation_scores"])
    assert second.numbers["values"][CHAMPION] > second.numbers["values"]["uniform"]


def test_log_that_hardly_covers_the_candidate_does_not_promote_it(workshop: Workshop) -> None:
    """A candidate that the log hardly covers is not promoted."""

    def timid(contexts: FloatArray) -> FloatArray:
        return np.tile([0.02, 0.92, 0.02, 0.02, 0.02], (len(contexts), 1))

    result = workshop.train(served(1_500, seed=9, policy=timid))
    assert result.verdict == Verdict.CHAMPION_KEPT
    (check,) = (check for check in result.numbers["checks"] if check["name"] == "effective_samples")
    assert not check["passed"]
    assert check["effective_samples"] < check["floor"]


@pytest.mark.parametrize(("rows", "floor"), [(100, 100.0), (2_000, 200.0), (50_000, 500.0)])
def test_effective_samples_that_are_asked_grow_with_the_holdout_up_to_the_setting(rows: int, floor: float) -> None:
    """The asked effective samples grow with the holdout, up to the setting."""
    assert effective_floor(rows, most=500) == floor


def test_champion_over_other_actions_is_left_out_with_a_sentence(workshop: Workshop) -> None:
    """A champion with other actions is left out of the comparison, and a check says so."""

    class OtherActions:
        manifest = Manifest(
            model_type="recommendation", kind="learned", feature_names=(), reducer_version=1, created_at=BEGIN,  # type: ignore[arg-type]
            action_set="items-34", actions=("a", "b"), context_schema="other",
        )  # fmt: skip

    baseline = runtime_for(open_artifact(workshop.store.get(workshop.champion), workshop.key.trusted()))
    other: Any = OtherActions()
    evidence = TRAINER.evaluate(examples_of(served(400, seed=6)), candidate=baseline, champion=other, seed=0)
    assert CHAMPION not in evidence.rows
    assert any(check.name == "champion_is_comparable" for check in evidence.checks)


def test_trainer_is_found_by_its_model_type() -> None:
    """The trainer is found by its model type."""
    assert trainer_of("recommendation") is TRAINER
