"""Online Retail: invoices of a gift shop, December 2010 to December 2011, with all their dirt (CC0).

Chen, Sain, Guo, J. Database Marketing & Customer Strategy Management 19 (2012). A line is a purchase, an invoice the
transaction that pays for it: the sum of its lines, their number, their commonest category. An invoice that begins with
"C" is a refund: money that comes back, and no purchases. Times are taken as UTC, prices are pounds.

What is wrong in the set stays wrong, because a stream has to live with it:

- Lines without a customer are sent as events without a user; they end as dead letters.
- A line that stands there twice is one event sent twice (and is paid once).
- Prices of nought are sent as they are.

December 2011 has nine days: no target for a forecast.
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
    """The events of Online Retail; the file is sorted by time and read as it goes (480,000 events would fill memory)."""

    name = "onlineretail"

    def __init__(self, settings: ReplaySettings) -> None:
        self._file = settings.data_file(FILE)

    @functools.cached_property
    def size(self) -> int:
        """How many events there are; reads the file once (a second)."""
        return sum(_event_count(lines) for lines in self._invoices())

    @functools.cached_property
    def ends_at(self) -> dt.datetime:
        """When the last line was written."""
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
        yield from map(_nobodys, lines)
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


def _nobodys(row: Row) -> RawRecord:
    """Return a purchase of nobody: it lacks what every event must have."""
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
    first = lines[0]  # its time is part of the name: one invoice was continued after another
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
    """Goods have numbers for codes; postage, fees, discounts and the like have words."""
    return "shopping" if row["StockCode"][0].isdigit() else "other"


def _line_name(row: Row) -> str:
    return "line:" + "|".join(
        row[name] for name in ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
    )
