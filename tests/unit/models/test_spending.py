"""The spending trainer: its distribution, its origins, its candidates and what they are judged by."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import TransactionCreated
from modelkit.training.clocks import known_spans
from modelkit.training.interface import FitContext, NotEnoughHistoryError
from models.spending.features import SPENDING_FEATURES
from models.spending.training.distribution import (
    LEVELS,
    MEDIAN,
    OUTPUTS,
    QUANTILES_FROM,
    STEPS,
    crps,
    directional_accuracy,
    own_sums_as_quantiles,
    point_as_quantiles,
    quantiles,
)
from models.spending.training.examples import (
    HOLDOUT,
    HORIZON,
    TRAIN,
    VALIDATION,
    SpendingExamples,
    origins_of,
    spending_examples,
)
from models.spending.training.network import (
    ResidualLstm,
    checkpoint_of,
    export_network,
    fit_network,
    scores_of,
    weights_in,
)
from models.spending.training.trainer import (
    SpendingTrainer,
    conformal,
    headline_crps,
    newest_and_replay,
    trivial_forecasts,
)
from schemas.errors import FinCoachError
from stack.replay.cdnow import CdnowSource
from tests.training_factories import FIRST_DAY, shop_history, snapshot_of, transaction


def silent(_phase: str, _step: int, _steps: int, _loss: float | None) -> None:
    """Ignore the progress."""


@pytest.fixture(scope="module")
def examples() -> SpendingExamples:
    """Give the examples of a small shop."""
    return spending_examples(snapshot_of(shop_history(users=400, weeks=40)), seed=0)


# --- the distribution ---------------------------------------------------------------------------------------


@given(st.floats(0.011, 0.989), st.floats(-3, 6), st.floats(0.05, 2))
def test_quantiles_never_fall_and_begin_with_the_share_that_does_not_buy(
    buy: float, location: float, spread: float
) -> None:
    """Quantiles never fall, and are 0 up to the share that does not buy."""
    found = quantiles(np.array([buy]), np.array([location]), np.array([spread]))[0]
    assert np.all(np.diff(found) >= 0)
    assert np.all((found == 0) == (1 - buy >= LEVELS))


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_score_of_a_point_is_its_absolute_error(forecast: float, truth: float) -> None:
    """The score of a point forecast is its absolute error."""
    point = point_as_quantiles(np.array([forecast]))
    # Twice the mean pinball loss over levels that are symmetric around one half.
    assert crps(point, np.array([truth]))[0] == pytest.approx(abs(forecast - truth), abs=1e-9)


def test_the_true_distribution_scores_best() -> None:
    """The true distribution has the best score."""
    generator = np.random.default_rng(0)
    truth = np.exp(generator.logistic(2.0, 0.4, 20_000)) * (generator.random(20_000) < 0.7)
    scores = {
        spread: np.mean(
            crps(np.repeat(quantiles(np.array([0.7]), np.array([2.0]), np.array([spread])), truth.size, axis=0), truth)
        )
        for spread in (0.2, 0.4, 0.8)
    }
    assert min(scores, key=lambda spread: scores[spread]) == 0.4


def test_own_sums_use_only_weeks_that_were_observed() -> None:
    """A user's own sums use only weeks in which the user was observed."""
    series = np.array([[0, 0, 0, 0, 0, 0, 8, 8, 8, 8], [0, 0, 0, 0, 0, 0, 8, 8, 8, 8]], dtype=float)
    found = own_sums_as_quantiles(series, np.array([4.0, 10.0]))
    assert found[0].tolist() == [32.0] * LEVELS.size
    assert found[1, 0] < 8 < found[1, -1] <= 32


def test_a_change_within_the_dead_band_is_no_direction() -> None:
    """A change within the dead band has no direction."""
    before = np.array([100.0, 100.0, 100.0, 0.0])
    forecast = np.array([104.0, 120.0, 120.0, 0.0])
    truth = np.array([96.0, 130.0, 90.0, 0.0])
    assert directional_accuracy(forecast, truth, before) == 0.75


# --- examples -----------------------------------------------------------------------------------------------


@given(st.integers(0, 900))
def test_the_weeks_behind_one_part_are_over_before_the_next_part_begins(days: int) -> None:
    """The four weeks behind one part end before the next part begins."""
    end = FIRST_DAY + dt.timedelta(days=days)
    plan = origins_of(FIRST_DAY, end)
    by_part = {part: [origin for origin, of in plan if of == part] for part in (TRAIN, VALIDATION, HOLDOUT)}
    if not plan:
        assert days < 112
        return
    assert max(by_part[TRAIN]) + HORIZON <= min(by_part[VALIDATION])
    assert max(by_part[VALIDATION]) + HORIZON <= min(by_part[HOLDOUT])
    assert max(by_part[HOLDOUT]) + HORIZON <= end


def test_a_partition_that_lags_behind_ends_its_source_where_it_stands() -> None:
    """A lagging partition ends its source where it stands."""
    events = [transaction(f"user-{number}", day, 100) for number in range(6) for day in range(60 if number % 2 else 30)]
    snapshot = snapshot_of(events)
    partitions = {event.user_id.int % 2 for event in events}
    last = {
        partition: max(event.occurred_at for event in events if event.user_id.int % 2 == partition)
        for partition in partitions
    }
    assert known_spans(snapshot, "transaction_creation") == {"replay:test": (FIRST_DAY, min(last.values()))}


def test_features_stop_and_truths_begin_at_the_origin(examples: SpendingExamples) -> None:
    """Features stop at the origin, and truths begin there."""
    snapshot = snapshot_of(shop_history(users=400, weeks=40))
    history = next(iter(snapshot.users("transaction_creation")))
    rows = examples.only(examples.users == 0)
    assert rows.users.size > 0
    for origin, truth, week in zip(rows.origins, rows.truth, rows.column("week_01"), strict=True):
        start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=int(origin))
        spent = [(event.occurred_at - start, event.amount_minor / 100) for event in history.events]  # type: ignore[union-attr]
        week_before = sum(amount for since, amount in spent if dt.timedelta(weeks=-1) <= since < dt.timedelta(0))
        after = [
            sum(amount for since, amount in spent if dt.timedelta(weeks=step) <= since < dt.timedelta(weeks=step + 1))
            for step in range(STEPS)
        ]
        assert week == pytest.approx(week_before, rel=1e-5)
        assert truth.tolist() == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize(("users", "weeks"), [(0, 0), (400, 3), (20, 40)])
def test_too_little_history_is_refused_with_its_figures(users: int, weeks: int) -> None:
    """Too little history is refused with its figures."""
    with pytest.raises(NotEnoughHistoryError, match=r"not enough history \(\d+ ") as caught:
        SpendingTrainer().prepare(snapshot_of(shop_history(users=users, weeks=weeks)), seed=0)
    assert isinstance(caught.value, FinCoachError)


# --- candidates ---------------------------------------------------------------------------------------------


def test_untrained_the_network_is_its_baseline(examples: SpendingExamples) -> None:
    """The untrained network answers its baseline."""
    scores = scores_of(ResidualLstm(), examples.features[:50])
    level = examples.column("ewma")[:50] + 0.05 * examples.column("scale")[:50]
    np.testing.assert_allclose(scores[:, :STEPS], np.repeat(level[:, None], STEPS, axis=1), rtol=1e-4)


def test_a_fit_is_the_same_again_and_better_than_its_baseline(examples: SpendingExamples) -> None:
    """A fit is reproducible, and better than its baseline."""
    train = examples.of(TRAIN)
    networks = [fit_network(train, seed=5, passes=2, learning_rate=2e-3) for _ in range(2)]
    assert checkpoint_of(networks[0]) == checkpoint_of(networks[1])
    untrained = headline_crps(lambda rows: scores_of(ResidualLstm(), rows), train)
    assert headline_crps(lambda rows: scores_of(networks[0], rows), train) < untrained


def test_the_exported_network_answers_what_the_network_answers_for_any_number_of_rows(
    examples: SpendingExamples,
) -> None:
    """The exported network answers as the network does, for any number of rows."""
    network = fit_network(examples.of(TRAIN), seed=1, passes=1, learning_rate=2e-3)
    session = onnxruntime.InferenceSession(export_network(network), providers=["CPUExecutionProvider"])
    for count in (1, 7, 200):
        rows = examples.features[:count]
        (answered,) = session.run(["scores"], {"features": rows})
        assert answered.shape == (count, OUTPUTS)
        # A tenth of a cent: near zero a quantile is the difference of two float32 of the size of a week's spending.
        np.testing.assert_allclose(answered, scores_of(network, rows), rtol=1e-4, atol=1e-3)


def test_fine_tuning_starts_from_the_champions_weights(examples: SpendingExamples) -> None:
    """Fine-tuning starts from the champion's weights."""
    first = fit_network(examples.of(TRAIN), seed=1, passes=1, learning_rate=2e-3)
    weights = weights_in(checkpoint_of(first))
    assert weights is not None
    continued = fit_network(examples.of(TRAIN), seed=1, passes=0, learning_rate=1.0, start=weights)
    assert checkpoint_of(continued) == checkpoint_of(first)
    assert weights_in({}) is None


def test_newest_rows_come_with_as_many_older_ones(examples: SpendingExamples) -> None:
    """The newest rows come with as many older ones, so that the old population is not forgotten."""
    train = examples.of(TRAIN)
    chosen = newest_and_replay(train, seed=0)
    newest = chosen.origins > train.origins.max() - 56
    assert 0 < (~newest).sum() <= newest.sum()
    weekly = SimpleNamespace(origins=np.arange(0, 700, 7), only=list)  # a hundred weeks, a row each
    rows: Any = newest_and_replay(weekly, seed=0)  # type: ignore[arg-type]
    assert (sum(row >= 92 for row in rows), sum(row < 92 for row in rows)) == (8, 8)


def test_intervals_cover_what_they_promise(examples: SpendingExamples) -> None:
    """An 80 % interval covers about 80 % of the truths."""
    validation, holdout = examples.of(VALIDATION), examples.of(HOLDOUT)
    scores = scores_of(ResidualLstm(), validation.features)
    found = conformal(scores, validation)
    later = scores_of(ResidualLstm(), holdout.features)[:, :STEPS].sum(axis=1)
    scale = holdout.column("scale")
    inside = (holdout.total >= later + found["lower_total"] * scale) & (
        holdout.total <= later + found["upper_total"] * scale
    )
    assert 0.7 <= inside.mean() <= 0.9


def test_an_interval_encloses_eighty_of_a_hundred_truths_that_made_it() -> None:
    """The offsets leave a tenth of the residuals below and a tenth above, in each week and in the sum."""
    rows = 999
    week = np.random.default_rng(0).normal(size=(rows, STEPS))
    validation = SimpleNamespace(truth=week, total=week.sum(axis=1), column=lambda _name: np.ones(rows))
    found = conformal(np.zeros((rows, STEPS), dtype=np.float32), validation)  # type: ignore[arg-type]
    for values, lower, upper in [
        *zip(week.T, found["lower"], found["upper"], strict=True),
        (validation.total, found["lower_total"], found["upper_total"]),
    ]:
        assert ((values < lower).mean(), (values > upper).mean()) == pytest.approx((0.1, 0.1), abs=0.002)
    assert found["coverage"] == 0.8


def test_candidates_are_ready_to_pack(examples: SpendingExamples) -> None:
    """Every candidate can be packed and served."""
    candidates = SpendingTrainer().fit(examples, FitContext(seed=0, progress=silent))
    assert [candidate.parameters["family"] for candidate in candidates] == [
        "residual_lstm",
        "lightgbm_hurdle",
        "blend_of_residual_lstm_and_lightgbm",
    ]
    for candidate in candidates:
        assert candidate.model is not None
        (answered,) = onnxruntime.InferenceSession(candidate.model, providers=["CPUExecutionProvider"]).run(
            ["scores"], {"features": candidate.golden_inputs}
        )
        np.testing.assert_allclose(answered, candidate.expected, rtol=1e-3, atol=1e-3)
        assert len(candidate.parameters["outputs"]) == answered.shape[1]
        assert candidate.feature_names == SPENDING_FEATURES
        assert np.isfinite(candidate.validation_score)


def test_on_real_customers_the_candidate_beats_the_best_trivial_forecast() -> None:
    """On real customers the candidate beats the best trivial forecast."""
    trainer = SpendingTrainer()
    events = [event for event in CdnowSource(customers=2_500).events() if isinstance(event, TransactionCreated)]
    examples = trainer.prepare(snapshot_of(events), seed=0)
    best = max(
        trainer.fit(examples, FitContext(seed=0, progress=silent)), key=lambda candidate: candidate.validation_score
    )
    judged = examples.of(VALIDATION).only(examples.of(VALIDATION).headline)
    trivial = {
        name: float(np.mean(crps(scores[:, QUANTILES_FROM:], judged.total)))
        for name, scores in trivial_forecasts(judged, examples.of(TRAIN)).items()
    }
    assert -best.validation_score < min(trivial.values())
    assert MEDIAN == 9
