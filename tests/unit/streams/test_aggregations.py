"""What counts for each model, and what completes its data."""

from __future__ import annotations

from schemas.vocabulary import FEEDBACK_INTERACTIONS, ModelType
from streams.aggregations import (
    aggregate_goal_events,
    aggregate_recommendation_feedback,
    aggregate_user_segments,
    aggregate_user_transactions,
    refused,
)
from tests.unit.streams.worlds import aimed, answered, folded, paid, user


def test_answers_count_and_views_do_not() -> None:
    """Showing recommendations would be enough to train on."""
    events = [folded(answered("view")), *(folded(answered(kind)) for kind in sorted(FEEDBACK_INTERACTIONS))]
    statistics = aggregate_recommendation_feedback(events)
    assert (statistics.counts.counted, statistics.counts.relevant) == (5, 6)
    assert statistics.categories == dict.fromkeys(sorted(FEEDBACK_INTERACTIONS), 1)


def test_an_answer_to_nothing_known_is_incomplete() -> None:
    """Feedback that no prediction can be found for would look as good as any."""
    linked = folded(answered(prediction_id=None, action="savings_nudge"))
    statistics = aggregate_recommendation_feedback([linked, folded(answered(prediction_id=None))])
    assert (statistics.counts.fields_expected, statistics.counts.fields_present, statistics.counts.missing) == (6, 5, 1)


def test_every_transaction_counts_for_spending() -> None:
    """Spending would wait for data that it has."""
    events = [folded(paid(100 * n, user_id=user(n), category="unknown" if n else "bills")) for n in range(4)]
    statistics = aggregate_user_transactions(events)
    assert (statistics.counts.counted, statistics.counts.relevant, statistics.counts.missing) == (4, 4, 3)
    assert statistics.categories == {"bills": 1, "unknown": 3}


def test_a_user_counts_once_for_segmentation() -> None:
    """One busy user would be taken for many new ones."""
    events = [folded(paid(), before=before) for before in range(15)]
    statistics = aggregate_user_segments(events)
    assert (statistics.counts.counted, statistics.counts.relevant) == (1, 15)


def test_who_gave_what_counts_is_known() -> None:
    """Whoever gives most of an epoch would stay unknown, or be blamed for what does not count."""
    given = [folded(answered("view", user_id=user(0))), *(folded(answered(user_id=user(n))) for n in (0, 1, 1))]
    assert aggregate_recommendation_feedback(given).heaviest == {user(0).bytes: 1, user(1).bytes: 2}
    assert aggregate_user_transactions([folded(paid()), folded(paid())]).heaviest == {user().bytes: 2}
    assert aggregate_user_segments([folded(paid(), before=n) for n in (8, 9, 10)]).heaviest == {user().bytes: 1}
    assert aggregate_goal_events([folded(aimed("update")), folded(aimed("fail"))]).heaviest == {user().bytes: 1}


def test_ends_of_goals_count() -> None:
    """Creating goals would be enough to train on outcomes."""
    events = [folded(aimed(step)) for step in ("create", "update", "achieve", "fail", "delete")]
    statistics = aggregate_goal_events(events)
    assert (statistics.counts.counted, statistics.counts.relevant) == (2, 5)
    assert statistics.categories == {"achieve": 1, "fail": 1}


def test_a_goal_that_wants_nothing_is_incomplete() -> None:
    """Goals without target, kind or end would look as good as any."""
    assert aggregate_goal_events([folded(aimed(goal_kind=None))]).counts.missing == 1
    assert aggregate_goal_events([folded(aimed(goal_kind=None, target_minor=5))]).counts.missing == 0


def test_age_and_inconsistency_are_told() -> None:
    """Old or contradictory data would look fresh and sound."""
    events = [folded(paid(), age=31 * 86_400), folded(paid(), inconsistent=True), folded(paid())]
    statistics = aggregate_user_transactions(events)
    assert (statistics.fresh, statistics.counts.inconsistent) == (2, 1)


def test_refused_records_lower_validity_and_completeness() -> None:
    """A producer that leaves fields out would cost nothing."""
    counts = refused(ModelType.GOAL, invalid=3, missing=2).counts
    assert (counts.invalid, counts.missing, counts.fields_expected, counts.fields_present) == (3, 2, 6, 4)
