"""The threshold rule: when a data set is large and good enough."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkit.statistics.sketches import excess
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import DatasetReview, ThresholdDecision
from streams.epochs.thresholds import Circumstances, Evaluation, adapted, decide, user_cap
from streams.quality.assessment import QualityAssessment

RULE = ThresholdRule(threshold=500, quality_gate=0.8, cool_down_seconds=60)
ADAPTIVE = ThresholdRule(threshold=500, adaptive=True)
MONTH = 2_592_000


def quality(score: float, *, below_floor: tuple[str, ...] = ()) -> QualityAssessment:
    """Return a judgement."""
    return QualityAssessment(
        score=score, dimensions=dict.fromkeys(below_floor, 0.01), below_floor=below_floor, anomalies=0, duplicates=0, missing=0,
        parts={},
    )  # fmt: skip


def decided(
    counted: int = 512, *, of: QualityAssessment | None = None, rule: ThresholdRule = RULE, **now: object
) -> Evaluation:
    """Decide about a data set, by default one of good quality."""
    return decide(rule, msgspec.convert(now, Circumstances), counted=counted, quality=of or quality(0.9))


QUIET = ThresholdRule(threshold=500, blackouts=("Mon 08:00-12:00",))


@pytest.mark.parametrize(
    ("evaluation", "decision", "sentence"),
    [
        (decided(499), ThresholdDecision.WAITING_FOR_COUNT, "499 of 500, quality 0.90: collecting"),
        (
            decided(512, of=quality(0.71)),
            ThresholdDecision.WAITING_FOR_QUALITY,
            "512 of 500, quality 0.71 below 0.80: waiting",
        ),
        (
            decided(512, of=quality(0.9, below_floor=("diversity",))),
            ThresholdDecision.WAITING_FOR_QUALITY,
            "512 of 500, quality 0.90 but diversity 0.01 too low: waiting",
        ),
        (
            decided(512, seconds_since_epoch=15),
            ThresholdDecision.COOLING_DOWN,
            "512 of 500, quality 0.90, cooling down for 45 s more: waiting",
        ),
        (decided(500, seconds_since_epoch=60), ThresholdDecision.FIRED, "500 of 500, quality 0.90: train"),
        (decided(512), ThresholdDecision.FIRED, "512 of 500, quality 0.90: train"),
        (
            decided(512, of=quality(0.71), rule=ADAPTIVE, learned=1_638, first=1_000),
            ThresholdDecision.WAITING_FOR_COUNT,
            "512 of 640 (500 adapted: *1.28 for size, *1.00 season, *1.00 cost, *1.00 drift), quality 0.71: collecting",
        ),
        (
            decided(512, rule=QUIET, moment=dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)),
            ThresholdDecision.IN_BLACKOUT,
            "512 of 500, quality 0.90, no training in Mon 08:00-12:00 UTC: waiting",
        ),
        (
            decided(
                512, of=quality(0.3, below_floor=("validity",)), review=DatasetReview.APPROVED, reviewed_by="alice"
            ),
            ThresholdDecision.FIRED,
            "512 of 500, quality 0.30 accepted by alice: train",
        ),
        (
            decided(512, review=DatasetReview.QUARANTINED, reviewed_by="alice"),
            ThresholdDecision.QUARANTINED,
            "512 of 500, quality 0.90, quarantined by alice: not trained",
        ),
        (
            decided(120, rule=ThresholdRule(threshold=500, max_age_seconds=MONTH), age_seconds=MONTH),
            ThresholdDecision.FIRED,
            "120 of 100 (500 lowered by age), quality 0.90: train",
        ),
    ],
)
def test_the_decision_says_why(evaluation: Evaluation, decision: ThresholdDecision, sentence: str) -> None:
    """The decision comes with a sentence that gives its reason."""
    assert evaluation.decision is decision
    assert evaluation.sentence.replace("\N{MULTIPLICATION SIGN}", "*") == sentence
    assert evaluation.factors.configured == 500


def test_what_was_not_judged_does_not_fire() -> None:
    """A data set without a judgement waits for its quality."""
    evaluation = decide(RULE, counted=900, quality=None)
    assert evaluation.decision is ThresholdDecision.WAITING_FOR_QUALITY
    assert evaluation.quality_score is None


@given(
    counted=st.integers(0, 2_000), score=st.floats(0, 1), since=st.one_of(st.none(), st.floats(0, 200)),
)  # fmt: skip
def test_it_fires_exactly_when_all_conditions_hold(counted: int, score: float, since: float | None) -> None:
    """The rule fires exactly when count, quality and cool-down allow it."""
    evaluation = decided(counted, of=quality(score), seconds_since_epoch=since)
    assert evaluation.fired == (counted >= 500 and score >= 0.8 and (since is None or since >= 60))


ratios = st.one_of(st.none(), st.floats(0, 1e6))
circumstances = st.builds(
    Circumstances, learned=st.integers(0, 10**9), first=st.integers(0, 10**6), arrivals_ratio=ratios, cost_seconds=ratios,
    first_cost_seconds=ratios, psi=ratios, age_seconds=st.floats(0, 1e8),
    seconds_since_epoch=ratios, review=st.sampled_from(DatasetReview),
)  # fmt: skip
rules = st.builds(
    ThresholdRule, threshold=st.integers(1, 10**6), adaptive=st.booleans(), least=st.one_of(st.none(), st.integers(1, 10**3)),
    most=st.one_of(st.none(), st.integers(10**3, 10**7)), max_age_seconds=st.one_of(st.none(), st.integers(1, 10**8)),
    user_share=st.floats(0.001, 0.5), even_share=st.floats(1, 10),
)  # fmt: skip


ENDLESS = Circumstances(learned=10**9, first=1, arrivals_ratio=9.0)
ADRIFT = Circumstances(psi=100.0)


@given(rules, circumstances)
@example(ADAPTIVE, ENDLESS)
@example(ADAPTIVE, ADRIFT)
def test_the_threshold_keeps_its_bounds(rule: ThresholdRule, now: Circumstances) -> None:
    """The adapted threshold stays within the rule's bounds."""
    made = adapted(rule, now)
    least, most = rule.bounds()
    if made.is_aged:
        assert made.threshold <= rule.aged_threshold()
    elif rule.adaptive:
        assert least <= made.threshold <= most
    else:
        assert made.threshold == rule.threshold
    assert made.threshold >= 1


def test_the_bounds_are_those_of_the_rule() -> None:
    """Default and configured bounds limit extreme thresholds."""
    own = ThresholdRule(threshold=500, adaptive=True, least=400, most=600)
    made = [adapted(rule, now).threshold for rule in (ADAPTIVE, own) for now in (ENDLESS, ADRIFT)]
    assert made == [10_000, 250, 600, 400]
    assert "kept within 400 to 600" in decided(1, rule=own, learned=10**9, first=1).sentence


@given(rules, circumstances, st.integers(0, 10**7), st.integers(0, 10**5))
def test_more_data_never_un_fires(rule: ThresholdRule, now: Circumstances, counted: int, more: int) -> None:
    """More data never turns a decision to fire into one to wait."""
    before = decide(rule, now, counted=counted, quality=quality(0.9))
    after = decide(rule, now, counted=counted + more, quality=quality(0.9))
    assert after.fired >= before.fired


@given(circumstances)
def test_each_factor_moves_the_threshold_its_own_way(now: Circumstances) -> None:
    """Each factor moves the threshold in its own direction."""
    free = ThresholdRule(threshold=10_000, adaptive=True, least=1, most=10**9)

    def threshold(**changes: object) -> float:
        return adapted(free, msgspec.structs.replace(now, **changes)).wanted

    assert threshold(psi=0.5) < threshold(psi=None)
    assert threshold(psi=0.0) == threshold(psi=None)
    assert threshold(learned=400, first=100) == pytest.approx(2 * threshold(learned=100, first=100))
    assert threshold(learned=10, first=100) == threshold(learned=100, first=100)
    assert threshold(cost_seconds=9.0, first_cost_seconds=4.0) > threshold(cost_seconds=4.0, first_cost_seconds=4.0)
    assert threshold(arrivals_ratio=2.0) == threshold(arrivals_ratio=50.0) > threshold(arrivals_ratio=0.0) > 0


@given(
    st.integers(2, 5_000), st.dictionaries(st.integers(1, 40), st.integers(1, 30), max_size=30), st.integers(0, 10**6)
)
def test_no_user_pushes_a_threshold(threshold: int, others: dict[int, int], bot: int) -> None:
    """A single user's data points never reach the threshold alone."""
    rule = ThresholdRule(threshold=threshold)

    def effective(givers: dict[int, int]) -> float:
        heaviest = {number.to_bytes(2): count for number, count in givers.items()}
        return decide(
            rule, counted=sum(givers.values()), quality=quality(0.9), users=len(givers), excess=lambda cap: excess(heaviest, cap)
        ).effective_count  # fmt: skip

    assert effective({0: bot}) < threshold
    with_bot = effective({**others, 0: bot})
    assert with_bot <= sum(others.values()) + threshold // 2


@given(rules, st.integers(2, 10**6), st.integers(0, 10**5))
def test_a_users_part_is_never_more_than_half(rule: ThresholdRule, threshold: int, users: int) -> None:
    """A user's cap is at least one and at most half of the threshold."""
    assert 1 <= user_cap(rule, threshold=threshold, users=users) <= max(1, threshold // 2)


def test_a_users_part_is_the_share_or_three_even_shares() -> None:
    """A user's cap is the share, or three even shares if that is more."""
    rule = ThresholdRule(threshold=1_000)
    assert [user_cap(rule, threshold=1_000, users=users) for users in (1, 10, 100, 150, 10_000)] == [
        500,
        300,
        30,
        20,
        20,
    ]


def test_what_is_withheld_is_shown() -> None:
    """The sentence tells what is counted but withheld."""
    heaviest = {b"bot": 400, b"other": 5}
    evaluation = decide(RULE, counted=505, quality=quality(0.9), users=100, excess=lambda cap: excess(heaviest, cap))
    assert evaluation.sentence == "120 of 500 (505 counted, 385 beyond 15 a user), quality 0.90: collecting"
    assert evaluation.withholds_much
    assert not decided(505).withholds_much


def test_age_asks_for_a_fifth_and_never_for_less_quality() -> None:
    """Age lowers the required count to a fifth; the quality gate and the user cap stay."""
    rule = ThresholdRule(threshold=500, max_age_seconds=MONTH)
    old = Circumstances(age_seconds=MONTH)
    assert decide(rule, old, counted=100, quality=quality(0.9)).fired
    assert not decide(rule, old, counted=99, quality=quality(0.9)).fired
    assert decide(rule, old, counted=400, quality=quality(0.7)).decision is ThresholdDecision.WAITING_FOR_QUALITY
    alone = decide(rule, old, counted=499, quality=quality(0.9), users=1, excess=lambda cap: 499 - cap)
    assert (alone.fired, alone.effective_count) == (False, 50)


def test_an_evaluation_is_recorded_when_it_is_news() -> None:
    """An evaluation is recorded when it differs notably from the last recorded one."""
    first = decided(10)
    assert first.differs_from(None)
    assert not decided(499).differs_from(first.recorded())
    assert decided(512).differs_from(first.recorded())
    assert decided(10, rule=ThresholdRule(threshold=560)).differs_from(first.recorded())
    poor = decided(512, of=quality(0.6))
    assert not decided(600, of=quality(0.65)).differs_from(poor.recorded())
    assert decided(600, of=quality(0.75)).differs_from(poor.recorded())
