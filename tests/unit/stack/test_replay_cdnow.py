"""CDNOW as events: the published figures, stable ids, correct outcomes of goals."""

from __future__ import annotations

import collections
import datetime as dt
import functools
from uuid import UUID, uuid5

from fincoach_events.events import GoalModified, ProductInteraction, TransactionCreated
from fincoach_events.identifiers import user_id_from_name
from stack.replay.cdnow import CdnowSource, Purchase
from stack.replay.source import RawRecord, ReplayItem


@functools.cache
def cdnow() -> CdnowSource:
    """Return the set from the package index."""
    return CdnowSource()


@functools.cache
def all_events() -> tuple[ReplayItem, ...]:
    """All of its events."""
    return tuple(cdnow().events())


def purchase(row: int, day: dt.date, amount_minor: int, *, customer: str = "00001", quantity: int = 1) -> Purchase:
    """Return a row of the file."""
    return Purchase(row, customer, day, quantity, amount_minor)


def goals(source: CdnowSource) -> list[tuple[str, str, str, int | None]]:
    """Return the goal events as (day, interaction, goal, target)."""
    return [
        (f"{event.occurred_at:%Y-%m-%d}", event.interaction_type, event.goal_id, event.target_minor)
        for event in source.events()
        if isinstance(event, GoalModified)
    ]


def test_the_published_figures_come_out() -> None:
    """Counts and mean amount are those published for CDNOW."""
    kinds: collections.Counter[str] = collections.Counter()
    transactions: collections.Counter[object] = collections.Counter()
    total_minor = 0
    for event in all_events():
        assert not isinstance(event, RawRecord)
        kinds[type(event).__name__] += 1
        if isinstance(event, TransactionCreated):
            transactions[event.user_id] += 1
            total_minor += event.amount_minor
    assert kinds["ProductInteraction"] == kinds["TransactionCreated"] == 69_659
    assert len(transactions) == 23_570
    assert sum(count >= 10 for count in transactions.values()) == 1_154
    assert round(total_minor / 69_659) == 3_589
    assert sum(kinds.values()) == cdnow().size


def test_event_ids_are_unique_and_stable() -> None:
    """Each event has its own id, and it is the same in every replay."""
    names = [event.event_id for event in cdnow().events(50_000)]
    assert len(set(names)) == 50_000
    again = [event.event_id for event in CdnowSource().events(500)]
    assert again == names[:500]
    first = next(event for event in cdnow().events() if isinstance(event, TransactionCreated))
    assert first.event_id == uuid5(UUID("6f1d7c5e-3a0e-5d0b-9d55-0f6f5b1f7a11"), "cdnow:transaction:2")


def test_events_come_in_the_order_of_time() -> None:
    """Events come in order of time, up to the end of the last month."""
    moments = [event.occurred_at for event in all_events() if not isinstance(event, RawRecord)]
    assert moments == sorted(moments)
    assert moments[-1] <= cdnow().ends_at == dt.datetime(1998, 6, 30, 23, 59, 59, tzinfo=dt.UTC)


def test_a_purchase_yields_a_product_and_a_transaction() -> None:
    """A purchase yields a product interaction and a transaction of the same user with the right amounts."""
    bought, paid = CdnowSource([purchase(2, dt.date(1997, 1, 1), 3_000, quantity=3)]).events()
    assert isinstance(bought, ProductInteraction)
    assert isinstance(paid, TransactionCreated)
    assert bought.user_id == paid.user_id == user_id_from_name("cdnow", "00001")
    assert (bought.quantity, bought.unit_price_minor, bought.interaction_type) == (3, 1_000, "purchase")
    assert (paid.amount_minor, paid.currency, paid.transaction_type, paid.category) == (
        3_000,
        "USD",
        "debit",
        "entertainment",
    )
    assert (paid.source, paid.consent) == ("replay:cdnow", True)


def test_goals_are_judged_by_what_was_really_bought() -> None:
    """The real purchases of a month decide whether its goal is achieved."""
    source = CdnowSource(
        [
            purchase(2, dt.date(1997, 1, 10), 2_000),
            purchase(3, dt.date(1997, 2, 3), 1_500),
            purchase(4, dt.date(1997, 2, 20), 501),  # 2,001 in all: one cent over the 2,000 of January
            purchase(5, dt.date(1997, 3, 31), 2_000),  # exactly the mean of 2,000 and 2,001, cut to cents
            purchase(6, dt.date(1997, 4, 1), 1, customer="00002"),  # somebody else's month
        ]
    )
    assert goals(source) == [
        ("1997-02-01", "create", "budget:00001:1997-02", 2_000),
        ("1997-02-28", "fail", "budget:00001:1997-02", 2_000),
        ("1997-03-01", "create", "budget:00001:1997-03", 2_000),
        ("1997-03-31", "achieve", "budget:00001:1997-03", 2_000),
        ("1997-04-01", "create", "budget:00001:1997-04", 2_000),
        ("1997-04-30", "achieve", "budget:00001:1997-04", 2_000),
    ]
    assert source.size == 2 * 5 + 6


def test_who_is_away_sets_no_budget_and_empty_months_count() -> None:
    """A customer away for too long sets no goal; months without a purchase count towards the target."""
    others = [purchase(10 + month, dt.date(1997, month, 2), 100, customer="00002") for month in range(1, 8)]
    source = CdnowSource([purchase(2, dt.date(1997, 1, 10), 6_000), purchase(3, dt.date(1997, 7, 1), 1), *others])
    mine = [goal for goal in goals(source) if "00001" in goal[2]]
    assert [(day, target) for day, step, _, target in mine if step == "create"] == [
        ("1997-02-01", 6_000),
        ("1997-03-01", 3_000),
        ("1997-04-01", 2_000),
    ]


def test_who_never_paid_anything_sets_no_budget() -> None:
    """A customer without any payment sets no goal."""
    rows = [purchase(2, dt.date(1997, 1, 10), 0), purchase(3, dt.date(1997, 2, 1), 500)]
    assert goals(CdnowSource(rows)) == []


def test_fewer_customers_keep_their_whole_history() -> None:
    """A replay of fewer customers keeps their whole history."""
    rows = [
        purchase(2, dt.date(1997, 1, 1), 100),
        purchase(3, dt.date(1997, 1, 2), 100, customer="00002"),
        purchase(4, dt.date(1998, 1, 1), 100),
    ]
    events = list(CdnowSource(rows, customers=1).events())
    assert {event.user_id for event in events if not isinstance(event, RawRecord)} == {
        user_id_from_name("cdnow", "00001")
    }
    assert sum(isinstance(event, TransactionCreated) for event in events) == 2
