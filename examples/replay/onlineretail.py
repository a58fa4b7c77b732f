"""Online Retail: invoices of a gift shop, December 2010 to December 2011, defects included (CC0).

Chen, Sain, Guo, J. Database Marketing & Customer Strategy Management 19 (2012). A line is a purchase. An invoice is the
transaction that pays for it: the sum of its lines, their number, their most common category. An invoice that begins with
"C" is a refund: a credit without purchases. Times count as UTC, prices are pounds.

The defects of the set are kept, because the system must cope with such data:

- Lines without a customer are sent as events without a user; they become dead letters.
- A repeated line is one event sent twice (and paid once).
- Prices of zero are sent as they are.

December 2011 has nine days only, so it is no target for a forecast.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import itertools
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from examples.replay.tables import Row, moment, rows_of
from fincoach_events.events import ProductInteraction, TransactionCreated
from fincoach_events.identifiers import event_id_from_key
from stack.replay.settings import ReplaySettings
from stack.replay.source import RawRecord, ReplayItem, at_most, envelope

CURRENCY = "GBP"
FILE = "onlineretail/lines.csv.gz"
_PENCE = 100


class OnlineRetailSource:
    """The events of Online Retail; streamed from the file, which is sorted by time (480,000 events would fill memory)."""

    name = "onlineretail"

    def __init__(self, settings: ReplaySettings) -> None:
        self._file = settings.data_file(FILE)

    @functools.cached_property
    def size(self) -> int:
        """The number of events; the first access reads the file (a second)."""
        return sum(_event_count(lines) for lines in self._invoices())

    @functools.cached_property
    def ends_at(self) -> dt.datetime:
        """The time of the last line."""
        last = collections.deque(rows_of(self._file), maxlen=1)
        return moment(last[0]["InvoiceDate"])

    def events(self, limit: int | None = None) -> Iterator[ReplayItem]:
        """Yield the lines of each invoice and then its transaction."""
        return at_most(limit, itertools.chain.from_iterable(map(_events, self._invoices())))

    def _invoices(self) -> Iterator[list[Row]]:
        for _, lines in itertools.groupby(rows_of(self._file), key=lambda row: row["InvoiceNo"]):
            yield list(lines)


def _event_count(lines: list[Row]) -> int:
    if not lines[0]["CustomerID"]:
        return len(lines)
    return 1 if _is_refund(lines[0]) else len(lines) + 1


def _events(lines: list[Row]) -> Iterator[ReplayItem]:
    if not lines[0]["CustomerID"]:
        yield from map(_without_user, lines)
        return
    if not _is_refund(lines[0]):
        yield from map(_bought, lines)
    yield _paid(lines)


def _is_refund(row: Row) -> bool:
    return row["InvoiceNo"].startswith("C")


def _bought(row: Row) -> ProductInteraction:
    return ProductInteraction(
        **envelope("onlineretail", _line_name(row), user=row["CustomerID"], occurred_at=moment(row["InvoiceDate"])),
        product_id=row["StockCode"],
        interaction_type="purchase",
        quantity=int(row["Quantity"]),
        unit_price_minor=round(Decimal(row["UnitPrice"]) * _PENCE),
        currency=CURRENCY,
    )


def _without_user(row: Row) -> RawRecord:
    """Return a purchase without a user, which is an invalid event."""
    event_id = event_id_from_key(f"onlineretail:{_line_name(row)}")
    event = {
        "event_type": "purchase",
        "event_id": event_id,
        "occurred_at": moment(row["InvoiceDate"]),
        "consent": True,
        "source": "replay:onlineretail",
        "product_id": row["StockCode"],
        "interaction_type": "purchase",
        "quantity": int(row["Quantity"]),
        "currency": CURRENCY,
    }
    return RawRecord(value=msgspec.json.encode(event), event_id=event_id)


def _paid(lines: list[Row]) -> TransactionCreated:
    first = lines[0]  # its time is part of the id: one invoice goes on after another
    distinct = {_line_name(row): row for row in lines}.values()
    total = sum((Decimal(row["UnitPrice"]) * int(row["Quantity"]) for row in distinct), start=Decimal(0))
    categories = collections.Counter(_category(row) for row in distinct)
    return TransactionCreated(
        **envelope(
            "onlineretail",
            f"invoice:{first['InvoiceNo']}:{first['InvoiceDate']}",
            user=first["CustomerID"],
            occurred_at=moment(lines[-1]["InvoiceDate"]),
        ),
        amount_minor=abs(round(total * _PENCE)),
        currency=CURRENCY,
        category=categories.most_common(1)[0][0],
        transaction_type="credit" if _is_refund(first) else "debit",
        merchant="Online Retail",
        country=first["Country"],
        additional_data={"lines": len(distinct)},
    )


def _category(row: Row) -> str:
    """Return the category: the codes of goods are numbers, those of postage, fees and discounts are words."""
    return "shopping" if row["StockCode"][0].isdigit() else "other"


def _line_name(row: Row) -> str:
    return "line:" + "|".join(
        row[name] for name in ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
    )
