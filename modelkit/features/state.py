"""What the reducer remembers of one user, and its bytes. Pure.

A state is mutable and compact (MessagePack arrays). It is bounded: at most :data:`MAX_RECENT` transactions,
:data:`DAYS_KEPT` daily totals, :data:`MAX_GOALS` goals and :data:`MAX_SHOWN` shown recommendations. Moments are integer milliseconds since 1970 in UTC;
amounts are integer minor units of the user's one currency.
"""

from __future__ import annotations

import datetime as dt

import msgspec

REDUCER_VERSION = 2

MILLISECONDS_PER_DAY = 86_400_000
MILLISECONDS_PER_HOUR = 3_600_000
MINOR_PER_MAJOR = 100.0

MAX_RECENT = 512
# One day more than the longest window: a request that is answered up to a day behind the newest event stays exact.
RECENT_SPAN = 31 * MILLISECONDS_PER_DAY
DAYS_KEPT = 62 * 7
MAX_GOALS = 32
MAX_SCHEDULE = 64
MAX_SHOWN = 256

CATEGORIES = (
    "groceries",
    "dine_out",
    "entertainment",
    "bills",
    "transport",
    "shopping",
    "health",
    "fitness",
    "savings",
    "income",
    "other",
)
FEEDBACK_KINDS = ("view", "click", "dismiss", "implement", "helpful", "not_helpful")
PRODUCT_KINDS = ("view", "add_to_cart", "purchase", "remove_from_cart")

CREDIT = -1

GOAL_OPEN, GOAL_ACHIEVED, GOAL_FAILED, GOAL_DELETED = 0, 1, 2, 3

Transaction = tuple[int, int, int, int, int | None]
"""(at, amount, category index of a debit or ``CREDIT``, CRC-32 of the merchant or 0, balance after or None)."""


class Goal(msgspec.Struct, array_like=True, kw_only=True):
    """One goal of a user.

    Attributes:
        created_at: when it was created, or first heard of.
        due_at: its end; None while unknown.
        status: open, achieved, failed or deleted.
        scored: how many updates carried a score (0..100); ``score_sum``, ``score_last`` belong to them.
        timed: how many updates have a known lateness; ``late_days`` is their sum (early is negative).
        schedule: days after creation at which work falls due, ascending.
    """

    goal_id: str
    created_at: int
    kind: str | None = None
    target_minor: int | None = None
    due_at: int | None = None
    status: int = GOAL_OPEN
    progress: float | None = None
    updates: int = 0
    scored: int = 0
    score_sum: float = 0.0
    score_last: float = 0.0
    timed: int = 0
    late_days: float = 0.0
    schedule: list[float] = msgspec.field(default_factory=list)


def _zeros_of_categories() -> list[int]:
    return [0] * len(CATEGORIES)


def _zeros_of_feedback() -> list[int]:
    return [0] * len(FEEDBACK_KINDS)


def _zeros_of_products() -> list[int]:
    return [0] * len(PRODUCT_KINDS)


class UserState(msgspec.Struct, array_like=True, kw_only=True):
    """The folded history of one user.

    Attributes:
        transactions: how many transactions were ever folded; crossing 10 makes a user's history sufficient.
        first_at, last_at: oldest and newest ``occurred_at`` of any event; 0 before the first.
        last_debit_at: newest debit; 0 before the first.
        debits, debit_minor, credits, credit_minor: lifetime counts and sums.
        category_minor: lifetime debits per category of :data:`CATEGORIES`.
        recent: transactions in the order of their time (equal times: of arrival), within :data:`RECENT_SPAN` of the newest one.
        days, day_minor: days since 1970 (UTC) that have debits, ascending, and their sums.
        goals: oldest creation first.
        goals_achieved, goals_failed: lifetime outcomes.
        shown: which recommendations were shown, newest last: 32 bits of their ids, negative once they were answered.
        currency, currency_votes: the currency of most transactions so far, and how firmly (a majority vote).
        balances: what the balance may be now; more than one after a balance that did not follow.
        session, session_at: CRC-32 of the latest session and its newest moment; 0 before the first.
    """

    reducer_version: int = REDUCER_VERSION
    transactions: int = 0
    first_at: int = 0
    last_at: int = 0
    last_debit_at: int = 0
    debits: int = 0
    debit_minor: int = 0
    credits: int = 0
    credit_minor: int = 0
    category_minor: list[int] = msgspec.field(default_factory=_zeros_of_categories)
    page_views: int = 0
    feedback: list[int] = msgspec.field(default_factory=_zeros_of_feedback)
    products: list[int] = msgspec.field(default_factory=_zeros_of_products)
    recent: list[Transaction] = msgspec.field(default_factory=list)
    days: list[int] = msgspec.field(default_factory=list)
    day_minor: list[int] = msgspec.field(default_factory=list)
    goals: list[Goal] = msgspec.field(default_factory=list)
    goals_achieved: int = 0
    goals_failed: int = 0
    shown: list[int] = msgspec.field(default_factory=list)
    currency: str = ""
    currency_votes: int = 0
    balances: list[int] = msgspec.field(default_factory=list)
    session: int = 0
    session_at: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UserState)


def encode_state(state: UserState) -> bytes:
    """Return the state as bytes; equal states give equal bytes."""
    return _encoder.encode(state)


def decode_state(raw: bytes) -> UserState:
    """Return the state in ``raw``, sharing nothing with others.

    Raises:
        msgspec.DecodeError: when ``raw`` is not a state.
    """
    return _decoder.decode(raw)


def copy_state(state: UserState) -> UserState:
    """Return an independent copy."""
    return _decoder.decode(_encoder.encode(state))


def milliseconds(moment: dt.datetime) -> int:
    """Return milliseconds since 1970 of an aware moment."""
    return round(moment.timestamp() * 1000.0)
