"""The gates: who passes, who does not, and with which numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.training.validation import (
    CANDIDATE,
    CHAMPION,
    Check,
    Evidence,
    GatePolicy,
    judge,
    mean_of_rows,
    paired_bootstrap,
)
from schemas.vocabulary import Verdict

USERS, ROWS_A_USER = 120, 3
POLICY = GatePolicy()


def evidence(
    *,
    candidate: float = 0.5,
    champion: float | None = 1.0,
    baseline: float = 1.2,
    floor: float | None = None,
    users: int = USERS,
) -> Evidence:
    """Return losses (lower is better) around the given means, the same noise for all."""
    clusters = np.repeat(np.arange(users), ROWS_A_USER)
    noise = np.random.default_rng(7).normal(0, 0.1, clusters.size)
    own = np.random.default_rng(8).normal(0, 0.05, clusters.size)
    rows = {CANDIDATE: candidate + noise + own, "trivial": baseline + noise, "worse_trivial": baseline + 1 + noise}
    if champion is not None:
        rows[CHAMPION] = champion + noise
    return Evidence(
        metric="loss",
        higher_is_better=False,
        clusters=clusters,
        rows=rows,
        baselines=("trivial", "worse_trivial"),
        floor=floor,
    )


def test_a_better_candidate_wins_with_its_numbers() -> None:
    """A better candidate wins, and the verdict carries its numbers."""
    judgement = judge(evidence(), POLICY)
    assert judgement.verdict == Verdict.CANDIDATE_WINS
    comparison = judgement.comparison
    assert comparison.baseline_name == "trivial"
    assert comparison.champion == pytest.approx(1.0, abs=0.05)
    assert comparison.lower is not None
    assert 0 < comparison.lower < 0.5 < comparison.upper + 0.05  # type: ignore[operator]
    assert judgement.numbers["users"] == USERS
    assert {check["name"] for check in judgement.numbers["checks"]} >= {
        "better_than_champion",
        "better_than_trivial",
        "finite",
    }


@pytest.mark.parametrize(
    ("case", "verdict", "stage"),
    [
        (evidence(candidate=1.1), Verdict.CHAMPION_KEPT, "champion"),
        (evidence(baseline=0.45), Verdict.CHAMPION_KEPT, "baselines"),
        (evidence(floor=0.4), Verdict.REJECTED, "floor"),
        (evidence(candidate=float("nan")), Verdict.REJECTED, "sanity"),
        (evidence(users=10), Verdict.CHAMPION_KEPT, "champion"),
        (evidence(champion=None), Verdict.CANDIDATE_WINS, "sanity"),
    ],
)  # fmt: skip
def test_each_gate_stops_what_it_is_there_for(case: Evidence, verdict: Verdict, stage: str) -> None:
    """Each gate stops the case that it is there for."""
    judgement = judge(case, POLICY)
    assert judgement.verdict == verdict
    assert judgement.reasons[0].startswith(stage)


def test_a_models_own_check_keeps_the_champion_and_a_failed_sanity_check_rejects() -> None:
    """A model's own check keeps the champion, and a failed sanity check rejects."""
    unstable = Check(stage="stability", name="churn", passed=False, sentence="labels churn")
    assert judge(replace(evidence(), checks=(unstable,)), POLICY).verdict == Verdict.CHAMPION_KEPT
    broken = Check(stage="sanity", name="parity", passed=False, sentence="the export differs")
    judgement = judge(evidence(), POLICY, sanity=[broken])
    assert (judgement.verdict, judgement.reasons) == (Verdict.REJECTED, ("sanity: the export differs",))


def test_the_direction_of_the_metric_is_obeyed() -> None:
    """A metric's direction decides which side is better."""
    flipped = evidence()
    flipped = replace(flipped, higher_is_better=True, rows={name: -rows for name, rows in flipped.rows.items()})
    assert judge(flipped, POLICY).verdict == Verdict.CANDIDATE_WINS
    assert judge(replace(evidence(), higher_is_better=True), POLICY).verdict == Verdict.CHAMPION_KEPT


def test_equal_rows_have_no_difference() -> None:
    """Equal rows have a difference of 0."""
    same = evidence()
    same = replace(same, rows={**same.rows, CHAMPION: same.rows[CANDIDATE]})
    assert paired_bootstrap(same, CANDIDATE, CHAMPION, seed=0) == (0.0, 0.0, 0.0)
    assert judge(same, POLICY).verdict == Verdict.CHAMPION_KEPT


@given(st.integers(0, 1000))
def test_the_same_seed_gives_the_same_interval(seed: int) -> None:
    """The same seed gives the same interval."""
    case = evidence(users=12)
    assert paired_bootstrap(case, CANDIDATE, CHAMPION, seed=seed, replicates=50) == paired_bootstrap(
        case, CANDIDATE, CHAMPION, seed=seed, replicates=50
    )


def any_statistic(rows: npt.NDArray[np.float64]) -> float:
    """Return the mean, by the path for statistics that are no means."""
    return mean_of_rows(rows)


def test_both_ways_of_drawing_users_agree() -> None:
    """Both ways of drawing users give the same interval."""
    case = evidence(users=40)
    direct = paired_bootstrap(case, CANDIDATE, CHAMPION, seed=3, replicates=400)
    general = paired_bootstrap(replace(case, statistic=any_statistic), CANDIDATE, CHAMPION, seed=3, replicates=400)
    assert general == pytest.approx(direct)


def test_rows_of_one_user_do_not_count_as_independent_evidence() -> None:
    """The bootstrap draws users: drawing rows promoted a null model 12 % of the time at a nominal 5 %."""
    promoted = {"users": 0, "rows": 0}
    runs, users, rows_a_user = 200, 40, 12
    for number in range(runs):
        generator = np.random.default_rng(number)
        effect = np.repeat(generator.normal(0, 1, users), rows_a_user) + generator.normal(0, 0.5, users * rows_a_user)
        clusters = np.repeat(np.arange(users), rows_a_user)
        case = Evidence(
            metric="gain",
            higher_is_better=True,
            clusters=clusters,
            rows={CANDIDATE: effect, CHAMPION: np.zeros_like(effect)},
            baselines=(),
        )
        promoted["users"] += paired_bootstrap(case, CANDIDATE, CHAMPION, seed=number, replicates=200).lower > 0
        alone = replace(case, clusters=np.arange(effect.size))
        promoted["rows"] += paired_bootstrap(alone, CANDIDATE, CHAMPION, seed=number, replicates=200).lower > 0
    assert promoted["users"] / runs <= 0.07
    assert promoted["rows"] / runs > 0.15
