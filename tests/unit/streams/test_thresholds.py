"""When a data set is large and good enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.vocabulary import ThresholdDecision
from streams.quality import QualityAssessment
from streams.thresholds import Evaluation, ThresholdRule, decide

RULE = ThresholdRule(threshold=500, quality_gate=0.8, cool_down_seconds=60)


def quality(score: float, *, below_floor: tuple[str, ...] = ()) -> QualityAssessment:
    """Return a judgement."""
    return QualityAssessment(
        score=score, dimensions=dict.fromkeys(below_floor, 0.01), below_floor=below_floor, anomalies=0, duplicates=0, missing=0,
        parts={},
    )  # fmt: skip


def decided(counted: int = 512, *, of: QualityAssessment | None = None, since: float | None = None) -> Evaluation:
    """Decide about a data set of sound quality unless said otherwise."""
    return decide(RULE, counted=counted, quality=of or quality(0.9), seconds_since_epoch=since)


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
            decided(512, since=15),
            ThresholdDecision.COOLING_DOWN,
            "512 of 500, quality 0.90, cooling down for 45 s more: waiting",
        ),
        (decided(500, since=60), ThresholdDecision.FIRED, "500 of 500, quality 0.90: train"),
        (decided(512), ThresholdDecision.FIRED, "512 of 500, quality 0.90: train"),
    ],
)
def test_the_decision_says_why(evaluation: Evaluation, decision: ThresholdDecision, sentence: str) -> None:
    """A person could not tell why a model was, or was not, retrained."""
    assert evaluation.decision is decision
    assert evaluation.sentence == sentence
    assert evaluation.factors["threshold"] == 500


def test_what_was_not_judged_does_not_fire() -> None:
    """A count without quality would train."""
    evaluation = decide(RULE, counted=900, quality=None, seconds_since_epoch=None)
    assert evaluation.decision is ThresholdDecision.WAITING_FOR_QUALITY
    assert evaluation.quality_score is None


@given(
    counted=st.integers(0, 2_000), score=st.floats(0, 1), since=st.one_of(st.none(), st.floats(0, 200)),
)  # fmt: skip
def test_it_fires_exactly_when_all_conditions_hold(counted: int, score: float, since: float | None) -> None:
    """A threshold would train without its quality, too early, or never."""
    evaluation = decide(RULE, counted=counted, quality=quality(score), seconds_since_epoch=since)
    assert evaluation.fired == (counted >= 500 and score >= 0.8 and (since is None or since >= 60))
