"""CDNOW: 69,659 purchases of 23,570 customers of a CD shop, January 1997 to June 1998, with budget goals.

The file comes inside the ``lifetimes`` 0.11.3 wheel (MIT). Fader and Hardie, "Forecasting Repeat Sales at CDNOW",
Interfaces 31 (2001). Each row yields a purchase and the transaction that pays for it. The set has days but no times:
every purchase is at noon UTC.

The goals are invented, their outcomes are real. A budget goal for a month asks the customer to stay at or under the mean
of the earlier months (from the first purchase on; months without a purchase count). It is created at the start of the
month, for customers who bought something in the three months before. At the end of the month the real purchases decide
whether it is achieved or failed.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fincoach_events.events import AnyBehavioralEvent, GoalModified, ProductInteraction, TransactionCreated
from stack.replay.packages import Package, fetch_package
from stack.replay.source import ReplayItem, at_most, envelope
from stack.settings import MachineSettings

PACKAGE = Package(
    requirement="lifetimes==0.11.3", sha256="261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8"
)
FILE = "lifetimes/datasets/CDNOW_master.txt"
ACTIVE_MONTHS = 3
CURRENCY = "USD"
_NOON = dt.time(12, tzinfo=dt.UTC)
_MONTHS_A_YEAR = 12


class Purchase(NamedTuple):
    """One row of the file; ``row`` is its line number, which distinguishes equal rows: they are two purchases."""

    row: int
    customer: str
    day: dt.date
    quantity: int
    amount_minor: int

    @property
    def month(self) -> int:
        """The month as a running number."""
        return self.day.year * _MONTHS_A_YEAR + self.day.month - 1


class Budget(NamedTuple):
    """A customer's goal for one month, and the amount spent in it."""

    customer: str
    month: int
    target_minor: int
    spent_minor: int

    @property
    def is_kept(self) -> bool:
        """Whether the customer stayed at or under the target."""
        return self.spent_minor <= self.target_minor


class CdnowSource:
    """The events of CDNOW, in order of time.

    Args:
        purchases: rows to play instead of the file's.
        customers: play only this many customers, in the order of their first purchase; None plays all.
    """

    name = "cdnow"

    def __init__(
        self,
        purchases: Iterable[Purchase] | None = None,
        *,
        customers: int | None = None,
        settings: MachineSettings | None = None,
    ) -> None:
        rows = read_purchases(settings) if purchases is None else list(purchases)
        self._purchases = sorted(_of_customers(rows, customers), key=lambda purchase: purchase.day)

    @functools.cached_property
    def size(self) -> int:
        """How many events there are."""
        return 2 * len(self._purchases) + 2 * sum(len(budgets) for _, _, budgets in self._months())

    @property
    def ends_at(self) -> dt.datetime:
        """The end of the last month, when its goals are judged."""
        return _month_end(self._purchases[-1].month)

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield purchases, transactions and goals."""
        return at_most(limit, self._all_events())

    def _all_events(self) -> Iterator[AnyBehavioralEvent]:
        for _, purchases, budgets in self._months():
            yield from map(_created, budgets)
            for purchase in purchases:
                yield _bought(purchase)
                yield _paid(purchase)
            yield from map(_judged, budgets)

    def _months(self) -> Iterator[tuple[int, list[Purchase], list[Budget]]]:
        """Yield each month with its purchases and goals."""
        histories: dict[str, _History] = {}
        for month, group in itertools.groupby(self._purchases, key=lambda purchase: purchase.month):
            purchases = list(group)
            spent: collections.Counter[str] = collections.Counter()
            for purchase in purchases:
                spent[purchase.customer] += purchase.amount_minor
            budgets = [
                budget
                for customer, history in histories.items()
                if (budget := history.budget(customer, month, spent[customer]))
            ]
            yield month, purchases, budgets
            for customer, amount_minor in spent.items():
                histories.setdefault(customer, _History(month)).add(month, amount_minor)


class _History:
    """A customer's spending so far: first and last month of a purchase, and the total."""

    __slots__ = ("first_month", "last_month", "total_minor")

    def __init__(self, first_month: int) -> None:
        self.first_month = first_month
        self.last_month = first_month
        self.total_minor = 0

    def add(self, month: int, amount_minor: int) -> None:
        self.last_month = month
        self.total_minor += amount_minor

    def budget(self, customer: str, month: int, spent_minor: int) -> Budget | None:
        """Return the goal for ``month``; None after too long an absence or without any payment."""
        target_minor = self.total_minor // (month - self.first_month)
        if month - self.last_month > ACTIVE_MONTHS or target_minor == 0:
            return None
        return Budget(customer, month, target_minor, spent_minor)


def read_purchases(settings: MachineSettings | None = None) -> list[Purchase]:
    """Return the rows of the file, in its order.

    Raises:
        DownloadFailedError: the wheel cannot be fetched.
    """
    with zipfile.ZipFile(fetch_package(PACKAGE, settings)) as wheel, wheel.open(FILE) as raw:
        lines = io.TextIOWrapper(raw, encoding="ascii")
        next(lines)  # names of the columns
        return [_parsed(row, line) for row, line in enumerate(lines, start=2)]


def _parsed(row: int, line: str) -> Purchase:
    customer, day, quantity, dollars = line.split()
    whole, _, cents = dollars.partition(".")
    date = dt.date(int(day[:4]), int(day[4:6]), int(day[6:]))
    return Purchase(row, customer, date, int(quantity), int(whole) * 100 + int(cents.ljust(2, "0")))


def _of_customers(purchases: list[Purchase], count: int | None) -> list[Purchase]:
    if count is None:
        return purchases
    first_days = {
        purchase.customer: purchase.day for purchase in sorted(purchases, key=lambda row: row.day, reverse=True)
    }
    chosen = set(sorted(first_days, key=lambda customer: (first_days[customer], customer))[:count])
    return [purchase for purchase in purchases if purchase.customer in chosen]


def _bought(purchase: Purchase) -> ProductInteraction:
    return ProductInteraction(
        **envelope("cdnow", f"purchase:{purchase.row}", user=purchase.customer, occurred_at=_moment(purchase)),
        product_id="cd",
        interaction_type="purchase",
        quantity=purchase.quantity,
        unit_price_minor=round(purchase.amount_minor / purchase.quantity),
        currency=CURRENCY,
    )


def _paid(purchase: Purchase) -> TransactionCreated:
    return TransactionCreated(
        **envelope("cdnow", f"transaction:{purchase.row}", user=purchase.customer, occurred_at=_moment(purchase)),
        amount_minor=purchase.amount_minor,
        currency=CURRENCY,
        category="entertainment",
        transaction_type="debit",
        merchant="CDNOW",
    )


def _created(budget: Budget) -> GoalModified:
    return _goal(budget, "create", occurred_at=_month_start(budget.month))


def _judged(budget: Budget) -> GoalModified:
    return _goal(budget, "achieve" if budget.is_kept else "fail", occurred_at=_month_end(budget.month))


def _goal(budget: Budget, interaction: str, *, occurred_at: dt.datetime) -> GoalModified:
    goal_id = f"budget:{budget.customer}:{_month_start(budget.month):%Y-%m}"
    step = "create" if interaction == "create" else "judge"
    return GoalModified(
        **envelope("cdnow", f"{goal_id}:{step}", user=budget.customer, occurred_at=occurred_at),
        goal_id=goal_id,
        interaction_type=interaction,  # type: ignore[arg-type] # one of three literals, by its two callers
        goal_kind="budget",
        target_minor=budget.target_minor,
        currency=CURRENCY,
        due_at=_month_end(budget.month),
    )


def _moment(purchase: Purchase) -> dt.datetime:
    return dt.datetime.combine(purchase.day, _NOON)


def _month_start(month: int) -> dt.datetime:
    return dt.datetime(month // _MONTHS_A_YEAR, month % _MONTHS_A_YEAR + 1, 1, tzinfo=dt.UTC)


def _month_end(month: int) -> dt.datetime:
    """Return the last second of a month."""
    return _month_start(month + 1) - dt.timedelta(seconds=1)
