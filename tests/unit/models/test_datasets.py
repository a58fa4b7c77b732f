"""What counts for each model, and what completes its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelkit.statistics.consistency import BALANCE_BROKEN, CURRENCY_CHANGED, FIRST_ANSWER, TIME_REVERSED
from modelkit.statistics.events import FoldedEvent, NewEvents
from modelkit.statistics.sketches import DatasetStatistics, size
from models.goal.dataset import aggregate_goal_events
from models.recommendation.dataset import (
    LONGEST_READING_SECONDS,
    aggregate_page_views,
    aggregate_recommendation_feedback,
)
from models.segmentation.dataset import aggregate_user_segments
from models.spending.dataset import aggregate_user_transactions
from schemas.vocabulary import FEEDBACK_INTERACTIONS
from tests.four_models import data_sets_of_four
from tests.unit.streams.worlds import aimed, answered, folded, looked, paid, user


def added(
    aggregate: Callable[[NewEvents], DatasetStatistics | None], events: Sequence[FoldedEvent]
) -> DatasetStatistics:
    """Return what ``events`` add, which is not nothing."""
    statistics = aggregate(NewEvents(events))
    assert statistics is not None
    return statistics


def test_answers_count_and_views_do_not() -> None:
    """Answers count, and views do not."""
    events = [folded(answered("view")), *(folded(answered(kind)) for kind in sorted(FEEDBACK_INTERACTIONS))]
    statistics = aggregate_recommendation_feedback(events)
    assert (statistics.counts.counted, statistics.counts.relevant) == (5, 6)
    assert statistics.categories == dict.fromkeys(sorted(FEEDBACK_INTERACTIONS), 1)


def test_an_answer_to_nothing_known_is_incomplete() -> None:
    """An answer to nothing known is incomplete."""
    linked = folded(answered(prediction_id=None, action="savings_nudge"))
    statistics = aggregate_recommendation_feedback([linked, folded(answered(prediction_id=None))])
    assert (statistics.counts.fields_expected, statistics.counts.fields_present, statistics.counts.missing) == (2, 1, 1)


def test_every_transaction_counts_for_spending() -> None:
    """Every transaction counts for spending."""
    events = [folded(paid(100 * n, user_id=user(n), category="unknown" if n else "bills")) for n in range(4)]
    statistics = added(aggregate_user_transactions, events)
    assert (statistics.counts.counted, statistics.counts.relevant, statistics.counts.missing) == (4, 4, 3)
    assert statistics.categories == {"bills": 1, "unknown": 3}


def test_a_user_counts_once_for_segmentation() -> None:
    """A user counts once for segmentation."""
    events = [folded(paid(), before=before) for before in range(15)]
    statistics = added(aggregate_user_segments, events)
    assert (statistics.counts.counted, statistics.counts.relevant) == (1, 15)


def test_who_gave_what_counts_is_known() -> None:
    """The statistics name the users whose events count, and no others."""
    given = [folded(answered("view", user_id=user(0))), *(folded(answered(user_id=user(n))) for n in (0, 1, 1))]
    assert aggregate_recommendation_feedback(given).heaviest == {user(0).bytes: 1, user(1).bytes: 2}
    assert added(aggregate_user_transactions, [folded(paid()), folded(paid())]).heaviest == {user().bytes: 2}
    assert added(aggregate_user_segments, [folded(paid(), before=n) for n in (8, 9, 10)]).heaviest == {user().bytes: 1}
    assert added(aggregate_goal_events, [folded(aimed("update")), folded(aimed("fail"))]).heaviest == {user().bytes: 1}


def test_ends_of_goals_count() -> None:
    """The end of a goal counts, and its other steps do not."""
    events = [folded(aimed(step)) for step in ("create", "update", "achieve", "fail", "delete")]
    statistics = added(aggregate_goal_events, events)
    assert (statistics.counts.counted, statistics.counts.relevant) == (2, 5)
    assert statistics.categories == {"achieve": 1, "fail": 1}


def test_a_goal_that_wants_nothing_is_incomplete() -> None:
    """A goal without target, kind and end is incomplete."""
    assert added(aggregate_goal_events, [folded(aimed(goal_kind=None))]).counts.missing == 1
    assert added(aggregate_goal_events, [folded(aimed(goal_kind=None, target_minor=5))]).counts.missing == 0


def test_an_update_that_says_nothing_is_incomplete() -> None:
    """An update without progress, score and target is incomplete; an end needs none of them."""
    updates = [aimed("update", progress=0.5), aimed("update", score=70.0), aimed("update", target_minor=5)]
    assert added(aggregate_goal_events, [folded(event) for event in updates]).counts.missing == 0
    counts = added(
        aggregate_goal_events, [folded(aimed("update")), folded(aimed("achieve")), folded(aimed("delete"))]
    ).counts
    assert (counts.fields_expected, counts.missing) == (1, 1)


def test_age_and_contradictions_are_counted_by_kind() -> None:
    """Age and contradictions are counted by kind."""
    both = BALANCE_BROKEN | CURRENCY_CHANGED
    events = [
        folded(paid(), age=30 * 86_400 + 1),
        folded(paid(), findings=both),
        folded(paid(), findings=TIME_REVERSED),
    ]
    statistics = added(aggregate_user_transactions, events)
    counts = statistics.counts
    assert (statistics.fresh, counts.inconsistent) == (2, 2)
    assert (counts.balance_broken, counts.currency_changed, counts.time_reversed) == (1, 1, 1)
    assert (counts.without_view, counts.before_creation) == (0, 0)
    ages = [folded(paid(), age=days * 86_400) for days in (29, 30, 31)]  # the thirtieth day is within the horizon
    assert added(aggregate_user_transactions, ages).fresh == 2


def test_what_cannot_be_is_counted() -> None:
    """Impossible values, such as an amount of 0, are counted."""
    suspect = [paid(0), paid(currency="XXX"), paid(0, currency="XXX"), paid(1)]
    assert added(aggregate_user_transactions, [folded(event) for event in suspect]).counts.out_of_range == 3
    assert added(aggregate_user_transactions, [folded(paid())]).counts.out_of_range == 0
    assert (
        added(aggregate_goal_events, [folded(aimed("update", progress=9.0)), folded(aimed())]).counts.out_of_range == 1
    )
    chances = [folded(answered("view", propensity=chance)) for chance in (0.0, 0.5)]
    assert aggregate_recommendation_feedback(chances).counts.out_of_range == 1


def test_ages_are_kept_by_source() -> None:
    """Ages are kept for each source."""
    events = [folded(paid(source="a"), age=5.0), folded(paid(source="a")), folded(paid(source="b"), age=7.0)]
    ages = added(aggregate_user_transactions, events).ages
    assert {source: size(values) for source, values in ages.items()} == {"a": 2, "b": 1}


def test_optional_fields_are_counted() -> None:
    """Optional fields are counted where they are filled."""
    events = [folded(paid(merchant="m", balance_after_minor=0)), folded(paid(country="NL")), folded(paid())]
    assert added(aggregate_user_transactions, events).filled == {"merchant": 1, "country": 1, "balance_after_minor": 1}


def test_users_are_sorted_into_tiers_of_behaviour() -> None:
    """Users are counted in tiers of behaviour."""
    events = [folded(paid(), before=before) for before in (0, 1, 2, 3, 7, 8)]
    assert added(aggregate_user_transactions, events).tiers == {1: 1, 2: 2, 3: 1, 4: 2}


def test_views_are_implicit_and_never_count() -> None:
    """Views and time on a page are implicit, and never count as answers."""
    events = [folded(answered("view")), folded(answered("view")), folded(answered(), findings=FIRST_ANSWER)]
    counts = aggregate_recommendation_feedback(events).counts
    assert (counts.counted, counts.views, counts.views_answered, counts.inconsistent) == (1, 2, 1, 0)
    pages = [looked(duration_seconds=12.4), looked(duration_seconds=90_000.0), looked()]
    read = aggregate_page_views([folded(page) for page in pages])
    assert (read.counted, read.relevant, read.page_views, read.page_seconds) == (0, 0, 2, 12 + LONGEST_READING_SECONDS)


def test_segmentation_shares_what_spending_has_made() -> None:
    """Segmentation and spending share one reading of a transaction."""
    events = NewEvents([folded(paid(user_id=user(n)), before=9) for n in range(3)])
    spending, segments = aggregate_user_transactions(events), aggregate_user_segments(events)
    assert spending is not None
    assert segments is not None
    assert segments.users is spending.users
    assert segments.counts.counted == 3


def test_refused_records_lower_validity_and_completeness() -> None:
    """Refused records lower validity and completeness of every data set of their events."""
    dead = [("goal_modification", "missing_field")] * 2 + [
        ("goal_modification", "invalid_field"),
        ("other", "not_json"),
    ]
    (name, statistics), *others = data_sets_of_four().aggregate([], duplicate_types=[], dead=dead).items()
    assert (name, others) == ("goal", [])
    counts = statistics.counts
    assert (counts.invalid, counts.missing, counts.fields_expected, counts.fields_present) == (3, 2, 2, 0)


def test_duplicates_are_counted_in_every_data_set_of_their_events() -> None:
    """Duplicates count in every data set of their events."""
    given = data_sets_of_four().aggregate([folded(paid())], duplicate_types=["transaction_creation"], dead=[])
    assert {name: statistics.counts.duplicates for name, statistics in given.items()} == {
        "spending": 1,
        "segmentation": 1,
    }
    assert given["spending"].counts.counted == 1
