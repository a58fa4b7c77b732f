"""The churn model: it passes the checks of every model package, and says what it promises itself."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from uuid import UUID

import numpy as np
import pytest

from fincoach_churn.features import CHURN_FEATURES, NEVER_DAYS, churn_features
from fincoach_churn.runtime import RecencyRule, rates_by_recency
from fincoach_churn.training.examples import HOLDOUT, HORIZON, TRAIN, VALIDATION, churn_examples, moments_of
from fincoach_events.events import AnyBehavioralEvent, TransactionCreated
from modelkit.conformance import ModelConformance, snapshot_of
from modelkit.features import UserState, fold
from modelkit.training.interface import NotEnoughHistoryError
from modelkit.training.validation import judge
from schemas.vocabulary import Verdict

FIRST_DAY = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
DAYS = 420


def bought(number: int, user: int, day: float) -> TransactionCreated:
    """Return a purchase of a user on a day after the first."""
    return TransactionCreated(
        event_id=UUID(int=number), user_id=UUID(int=user + 1), occurred_at=FIRST_DAY + dt.timedelta(days=day), consent=True,
        source="replay:test", amount_minor=2_000, currency="USD", category="shopping", transaction_type="debit",
    )  # fmt: skip


@functools.cache
def shop(users: int = 300, seed: int = 0) -> Sequence[AnyBehavioralEvent]:
    """Return the purchases of customers who each buy at a pace of their own, until many of them stop for good."""
    generator = np.random.default_rng(seed)
    purchases = []
    for user in range(users):
        day, stops = float(generator.uniform(0, 60)), float(generator.exponential(250))
        while day < min(DAYS, stops + 60):
            purchases.append((day, user))
            day += float(generator.exponential(12 + 40 * (user % 3)))
    return [bought(number, user, day) for number, (day, user) in enumerate(sorted(purchases))]


class TestChurn(ModelConformance):
    """The checks that every model package passes."""

    model_type = "churn"
    events = staticmethod(shop)


def test_the_row_says_how_lately_and_how_often_a_user_bought() -> None:
    """Recency, pace and sums of a known history are what they should be."""
    state: UserState | None = None
    for number, day in enumerate((0.5, 10.5, 40.5)):
        state = fold(state, bought(number, 1, day))
    row = dict(zip(CHURN_FEATURES, churn_features(state, FIRST_DAY + dt.timedelta(days=60)).tolist(), strict=True))
    assert row["recency_days"] == 20.0
    assert row["recency_to_longest_gap"] == pytest.approx(20 / 30)
    assert (row["active_days_30"], row["active_days_60"]) == (1.0, 2.0)
    assert row["spent_365_log"] == pytest.approx(np.log1p(60.0))


def test_what_a_state_learns_later_is_not_in_the_row_of_an_earlier_day() -> None:
    """A purchase of tomorrow does not enter the row of today."""
    early = fold(None, bought(0, 1, 0.5))
    as_of = FIRST_DAY + dt.timedelta(days=5)
    before = churn_features(early, as_of)
    row = churn_features(fold(early, bought(1, 1, 9.5)), as_of)
    recency = CHURN_FEATURES.index("recency_days")
    assert row[recency] == before[recency] == 5.0


def test_who_never_bought_is_as_far_away_as_can_be() -> None:
    """An unknown user has the longest recency and no spending."""
    row = churn_features(None, FIRST_DAY)
    assert row[0] == NEVER_DAYS
    assert not row[2:].any()


def test_the_sixty_days_of_one_part_are_over_before_the_next_begins() -> None:
    """No fit and no selection has seen what the holdout judges."""
    plan = moments_of(FIRST_DAY, FIRST_DAY + dt.timedelta(days=DAYS))
    newest = {part: max(moment for moment, of in plan.items() if of == part) for part in (TRAIN, VALIDATION, HOLDOUT)}
    assert newest[TRAIN] + HORIZON <= newest[VALIDATION]
    assert newest[VALIDATION] + HORIZON <= newest[HOLDOUT]
    assert newest[HOLDOUT] + HORIZON <= FIRST_DAY + dt.timedelta(days=DAYS)
    assert moments_of(FIRST_DAY, FIRST_DAY + dt.timedelta(days=200)) == {}


def test_an_outcome_is_a_purchase_within_sixty_days() -> None:
    """The label is what happened behind the moment, and nothing before or later."""
    events = shop()
    examples = churn_examples(snapshot_of(events), seed=0)
    judged = examples.of(HOLDOUT)
    newest = max(moments_of(FIRST_DAY, max(event.occurred_at for event in events)))
    within = {event.user_id for event in events if newest <= event.occurred_at < newest + HORIZON}
    assert judged.returned.sum() == len(within & {event.user_id for event in events if event.occurred_at < newest})


@pytest.mark.parametrize(("users", "sentence"), [(0, "0 days of transactions"), (60, "users, 100 are needed")])
def test_too_little_history_is_said_with_its_figures(users: int, sentence: str) -> None:
    """People read what is missing before churn can be learned."""
    with pytest.raises(NotEnoughHistoryError, match=sentence):
        churn_examples(snapshot_of(shop(users)), seed=0)


def test_customers_who_never_stay_away_teach_nothing() -> None:
    """Where one of the outcomes hardly happens, no candidate is made."""
    events = [bought(number, number % 150, number / 150) for number in range(150 * 400)]
    with pytest.raises(NotEnoughHistoryError, match="0 users who stayed away"):
        churn_examples(snapshot_of(events), seed=0)


def test_the_rule_by_recency_answers_its_bands() -> None:
    """Each band of days has its rate, its lower end included."""
    rows = np.zeros((3, len(CHURN_FEATURES)), dtype=np.float32)
    rows[:, 0] = [5.0, 30.0, 400.0]
    assert rates_by_recency(rows, RecencyRule(cuts=[30.0], rates=[0.5, 0.25])).tolist() == [[0.5], [0.25], [0.25]]


def test_stopping_customers_are_told_from_slow_ones() -> None:
    """Where pace and end differ by user, the line beats the base rate, the rule and version 0."""
    from modelkit.conformance.suite import trained  # noqa: PLC0415 - the training that the checks have made

    found = trained(TestChurn)
    judgement = judge(found.evidence, found.trainer.policy, seed=0)
    assert judgement.verdict == Verdict.CANDIDATE_WINS, judgement.reasons
