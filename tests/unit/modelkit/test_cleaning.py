"""What cleaning keeps, repairs and leaves out, that features never notice, and what the record says."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import AnyBehavioralEvent, RecommendationInteraction, TransactionCreated, encode_event
from fincoach_events.identifiers import event_id_from_key, user_id_from_name
from modelkit.training.cleaning import (
    LEFT_OUT,
    RULES,
    Decision,
    Reason,
    beyond_share,
    feedback_reasons,
    most_of_a_user,
)
from modelkit.training.snapshot_files import EVENT_SCHEMA, FEEDBACK_SCHEMA, ORDER
from models.segmentation.training.examples import segmentation_examples
from models.spending.training.examples import spending_examples
from stack.replay.catalogue import open_source
from tests.small_sets import REAL, needs_real_sets
from tests.training_factories import FIRST_DAY, shop_history, snapshot_of, transaction
from trainers.snapshots.decisions import clean, summary_of

MINUTE = 1 / 1440
USUAL = [transaction(f"user-{number % 40}", number * 0.1 + MINUTE, 1_000 + 37 * (number % 61)) for number in range(400)]


def table_of(events: Sequence[AnyBehavioralEvent]) -> pa.Table:
    """Return the events as a snapshot holds them before it is cleaned; a user's events are placed as they are given."""
    rows = [
        {
            "user_id": event.user_id.bytes, "occurred_at": event.occurred_at, "event_type": event.__struct_config__.tag,
            "interaction_type": event.interaction_type, "source": event.source, "generation": 1, "partition": 0, "offset": number,
            "is_new": True, "payload": encode_event(event),
        }
        for number, event in enumerate(events)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, EVENT_SCHEMA).sort_by(ORDER)


def served(*names: UUID) -> pa.Table:
    """Return served recommendations of one user each, seen and answered."""
    rows = [
        {"prediction_id": name.bytes, "user_id": name.bytes, "shown_at": FIRST_DAY, "responses": ["click"], "responded_at": [FIRST_DAY]}
        for name in names
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, FEEDBACK_SCHEMA)


def decided(events: Sequence[AnyBehavioralEvent], feedback: pa.Table | None = None) -> dict[UUID, str]:
    """Return the reason of each event that is not kept as it is, by its id."""
    cleaned = clean(table_of(events), FEEDBACK_SCHEMA.empty_table() if feedback is None else feedback)
    names = [UUID(msgspec.json.decode(raw)["event_id"]) for raw in cleaned.events["payload"].to_pylist()]
    reasons = cleaned.events["cleaning"].to_pylist()
    return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}


def again(event: TransactionCreated, **changed: Any) -> TransactionCreated:  # noqa: ANN401 - fields
    """Return the event under another id."""
    return msgspec.structs.replace(event, event_id=event_id_from_key(f"again/{event.event_id}/{changed}"), **changed)


def answer(kind: str, prediction_id: UUID | None) -> RecommendationInteraction:
    """Return an answer to what was served under that name."""
    return RecommendationInteraction(
        event_id=event_id_from_key(f"{kind}/{prediction_id}"), user_id=user_id_from_name("test", "a"), consent=True, occurred_at=FIRST_DAY,
        recommendation_id="row", prediction_id=prediction_id, interaction_type=kind,  # type: ignore[arg-type]
    )  # fmt: skip


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"occurred_at": dt.datetime(1970, 1, 1, tzinfo=dt.UTC)}, Reason.IMPLAUSIBLE_TIME),
        ({"amount_minor": 0}, Reason.ZERO_AMOUNT),
        ({"amount_minor": 10**12}, Reason.ABSURD_AMOUNT),
        ({"amount_minor": 90_000}, Reason.ANOMALOUS_AMOUNT),
        ({"category": " N/A "}, Reason.UNKNOWN_CATEGORY),
        ({"amount_minor": 1}, None),
        ({"amount_minor": 9_000}, None),
        ({"category": "haberdashery"}, None),
    ],
)
def test_each_defect_is_found_by_its_own_rule_and_nothing_else_is_blamed(
    changed: dict[str, Any], reason: Reason | None
) -> None:
    """Each defect gets its own reason, and sound events get none."""
    odd = again(USUAL[7], **({"occurred_at": FIRST_DAY + dt.timedelta(days=3.3)} | changed))
    assert decided([*USUAL, odd]) == ({odd.event_id: reason} if reason else {})


def test_the_same_content_under_another_id_is_left_out_once_for_each_repeat() -> None:
    """Each repeat under a new id is left out, and the first event is kept."""
    first = USUAL[3]
    repeats = [again(first), again(first, session_id="s")]
    others = [again(first, amount_minor=first.amount_minor + 1), again(first, merchant="m"), again(first, user_id=USUAL[4].user_id),
              again(first, occurred_at=first.occurred_at + dt.timedelta(seconds=1))]  # fmt: skip
    found = decided([*USUAL, *repeats, *others])
    assert found == {event.event_id: Reason.DUPLICATE_CONTENT for event in repeats}


def test_equal_purchases_on_the_full_hour_are_kept() -> None:
    """Equal purchases on the full hour are kept: some sources know dates only."""
    noon = transaction("user-1", 2.5, 1_500)
    assert decided([*USUAL, noon, again(noon)]) == {}


def test_amounts_are_compared_within_their_source_currency_and_direction() -> None:
    """Amounts are compared only within their source, currency and direction."""
    salaries = [again(event, amount_minor=event.amount_minor * 1_000, transaction_type="credit") for event in USUAL]
    yen = [again(event, amount_minor=event.amount_minor * 10**6, currency="JPY") for event in USUAL]
    assert decided([*USUAL, *salaries, *yen]) == {}


def test_a_few_amounts_judge_nobody() -> None:
    """With few amounts nothing is called anomalous."""
    assert decided([*USUAL[:20], again(USUAL[0], amount_minor=10**11)]) == {}


def test_answers_to_what_was_never_served_are_left_out_and_named() -> None:
    """An answer to nothing served is left out, and the record names it."""
    known, foreign = UUID(int=1), UUID(int=2)
    answers = [answer("click", known), answer("dismiss", foreign), answer("helpful", None), answer("view", None)]
    found = decided(answers, served(known))
    assert found == {
        answers[1].event_id: Reason.ANSWER_TO_NOTHING_SERVED,
        answers[2].event_id: Reason.ANSWER_TO_NOTHING_SERVED,
    }


def test_unseen_answers_are_left_out_where_views_are_reported_and_kept_where_not() -> None:
    """Answers without a view are left out where views are reported: only the answered ones of those rows are known."""
    names = [bytes([number]) for number in range(6)]
    answered = np.array([True] * 4 + [False] * 2)
    seen = np.array([True, True, True, False, True, True])
    reported = feedback_reasons(names, names, is_seen=seen, is_answered=answered)
    silent = feedback_reasons(names, names, is_seen=np.zeros(6, dtype=np.bool_), is_answered=answered)
    assert reported.reasons[Reason.ANSWER_WITHOUT_VIEW].tolist() == [False] * 3 + [True] + [False] * 2
    assert (reported.views_are_reported, silent.views_are_reported) == (True, False)
    assert not silent.reasons[Reason.ANSWER_WITHOUT_VIEW].any()


@given(st.lists(st.just(0) | st.integers(0, 80), max_size=300), st.randoms())
def test_no_user_has_more_than_the_share_and_the_order_does_not_matter(
    users: list[int], shuffled: Any  # noqa: ANN401 - hypothesis' own
) -> None:  # fmt: skip
    """No user has more than the share, and which rows stay does not depend on their order."""
    rows = [(b"%d" % user, b"%d/%d" % (user, number)) for number, user in enumerate(users)]
    most = most_of_a_user(len(rows), len(set(users)))
    kept = _kept(rows, most)
    counts = Counter(user for user, _ in rows)
    assert Counter(user for user, _ in kept) == {user: min(count, most) for user, count in counts.items()}
    assert all(count <= most for count in Counter(user for user, _ in kept).values())
    moved = list(rows)
    shuffled.shuffle(moved)
    assert _kept(moved, most) == kept


def _kept(rows: Sequence[tuple[bytes, bytes]], most: int) -> set[tuple[bytes, bytes]]:
    beyond = beyond_share([user for user, _ in rows], [name for _, name in rows], most=most)
    return {row for row, left_out in zip(rows, beyond.tolist(), strict=True) if not left_out}


def test_the_share_of_a_user_is_two_in_a_hundred_or_three_even_shares() -> None:
    """The share of one user is two in a hundred, or three even shares where that is more."""
    assert (most_of_a_user(1_000, 1_000), most_of_a_user(1_000, 10), most_of_a_user(0, 0)) == (20, 300, 0)


# ---------------------------------------------------------------- properties


@given(st.permutations(range(40)), st.sets(st.integers(0, 399), max_size=30))
def test_decisions_follow_from_the_contents_not_from_the_order_of_users(order: list[int], twice: set[int]) -> None:
    """The same data is cleaned alike in whatever order the users come."""
    events = [*USUAL, *(again(USUAL[number]) for number in sorted(twice)), again(USUAL[5], amount_minor=0)]
    place = {user_id_from_name("test", f"user-{number}"): rank for rank, number in enumerate(order)}
    moved = sorted(events, key=lambda event: place[event.user_id])
    assert decided(moved) == decided(events)
    assert len(decided(events)) == len(twice) + 1


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.2])
def test_seeded_defects_are_found_at_their_rate_and_clean_history_is_not_blamed(rate: float) -> None:
    """Seeded defects are found at their rate, and clean history is left alone."""
    events = [again(event, occurred_at=event.occurred_at + dt.timedelta(minutes=7)) for event in shop_history(users=300, weeks=30)]  # fmt: skip
    generator = np.random.default_rng(4)
    chosen = generator.permutation(len(events))[: max(1, round(rate * len(events)))]
    absurd = {number: again(events[number], amount_minor=events[number].amount_minor * 10**7) for number in chosen}
    planted = [absurd.get(number, event) for number, event in enumerate(events)]
    doubled = [*events, *(again(events[number]) for number in chosen)]
    assert decided(events) == {}
    assert decided(planted) == {event.event_id: Reason.ABSURD_AMOUNT for event in absurd.values()}
    assert Counter(decided(doubled).values()) == {Reason.DUPLICATE_CONTENT: len(chosen)}


@needs_real_sets
def test_a_real_shop_is_hardly_blamed() -> None:
    """Hardly any event of a real shop is left out or repaired."""
    events = [item for item in open_source("onlineretail", data=REAL).events() if isinstance(item, TransactionCreated)]
    found = Counter(decided(events).values())
    assert found == {"anomalous_amount": 5, "zero_amount": 4, "duplicate_content": 1}


# ---------------------------------------------------------------- what trains


def test_features_are_those_of_all_events_and_truths_those_of_the_clean_ones() -> None:
    """Features are made of all events, as in serving, and truths of the clean ones."""
    events = [again(event, occurred_at=event.occurred_at + dt.timedelta(minutes=7)) for event in shop_history(users=200, weeks=40)]  # fmt: skip
    unclean = [*events, *(again(event) for event in events[::3])]
    unclean.sort(key=lambda event: (event.occurred_at, event.event_id))
    plain, cleaned = (spending_examples(snapshot_of(given), seed=0) for given in (events, unclean))
    np.testing.assert_allclose(cleaned.truth, plain.truth, rtol=1e-6)
    assert float(cleaned.column("week_01").sum()) > 1.2 * float(plain.column("week_01").sum())


def test_an_anomalous_amount_reaches_labels_at_its_limit_and_features_as_it_is() -> None:
    """Labels see an anomalous amount at its limit; features see it as it is."""
    odd = again(USUAL[7], occurred_at=FIRST_DAY + dt.timedelta(days=3.3), amount_minor=90_000)
    histories = {history.user_id: history for history in snapshot_of([*USUAL, odd]).users()}
    history = histories[odd.user_id]
    amounts = [[event.amount_minor for event in events if isinstance(event, TransactionCreated)] for events in (history.events, history.clean)]  # fmt: skip
    assert max(amounts[0]) == 90_000
    assert 9_000 < max(amounts[1]) < 90_000
    untouched = next(history for user, history in histories.items() if user != odd.user_id)
    assert untouched.clean is untouched.events


def test_duplicates_do_not_make_a_history_sufficient() -> None:
    """Duplicates do not count towards a sufficient history."""
    full = [transaction(f"full-{user}", day * 3 + MINUTE, 1_000 + user) for user in range(200) for day in range(14)]
    short = [transaction(f"short-{user}", day * 3 + MINUTE, 1_000 + user) for user in range(50) for day in range(6)]
    doubled = sorted([*full, *short, *(again(event) for event in short)], key=lambda event: event.occurred_at)
    alone = sorted(full, key=lambda event: event.occurred_at)
    assert segmentation_examples(snapshot_of(doubled), seed=0).users.size == segmentation_examples(snapshot_of(alone), seed=0).users.size  # fmt: skip


# ---------------------------------------------------------------- the record


def test_the_record_counts_every_row_and_names_examples() -> None:
    """The record says how many rows each reason concerned, why, and gives examples."""
    zeros = [again(USUAL[number], amount_minor=0, session_id=str(number)) for number in range(15)]
    record = clean(table_of([*USUAL, *zeros]), FEEDBACK_SCHEMA.empty_table()).record
    assert record["events"] == {"kept": 400, "repaired": 0, "left_out": 15}
    entry = record["reasons"]["zero_amount"]
    assert (entry["decision"], entry["rows"], entry["sentence"]) == ("left_out", 15, "no money moved")
    assert len(entry["examples"]) == 10
    assert {UUID(name) for name in entry["examples"]} <= {event.event_id for event in zeros}
    (limits,) = record["limits"].values()
    assert 1_000 < limits["median"] < limits["repaired_above"] < limits["absurd_above"]
    assert summary_of(record)["reasons"] == {"zero_amount": 15}
    assert msgspec.json.decode(msgspec.json.encode(record)) == record


def test_every_reason_has_a_rule_and_only_repairs_stay() -> None:
    """Every reason has a rule with a sentence, and only repaired events stay."""
    assert set(RULES) == set(Reason)
    assert all(rule.sentence and rule.decision != Decision.KEPT for rule in RULES.values())
    assert set(LEFT_OUT) == set(Reason) - {Reason.ANOMALOUS_AMOUNT, Reason.UNKNOWN_CATEGORY}


def test_an_empty_archive_is_cleaned_to_nothing() -> None:
    """An empty archive is cleaned without an error."""
    cleaned = clean(EVENT_SCHEMA.empty_table(), FEEDBACK_SCHEMA.empty_table())
    assert cleaned.record["events"] == {"kept": 0, "repaired": 0, "left_out": 0}
