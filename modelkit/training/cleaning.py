"""Which events and answers a training may learn from: kept, repaired or left out, each with the code of its reason. Pure.

The rules look at a whole snapshot and at nothing else, so that the same snapshot is always cleaned alike, however it was
paged. They decide about samples and labels alone. Features stay what the reducer makes of every archived event, unclean
ones too: that is what a replica computes when it is asked. So a repair reaches no feature; an event
that would need it is left out of the samples instead.

These stay as they are: amounts far below the usual (they move no sum), equal purchases on the full hour (a set
that knows dates only has honest ones), users with many transactions (each user gives as many samples as any other).
"""

from __future__ import annotations

import enum
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CLEANING_VERSION = 1
EARLIEST_MICROSECONDS = 631_152_000_000_000  # 1990: an earlier moment is of a clock that was never set
HOUR_MICROSECONDS = 3_600_000_000
# On a logarithmic scale: of log-normal amounts one in 10^9 lies beyond the first. Of 87,613 amounts of two real shops five
# do (mistaken orders and their cancellations), and none lies beyond the second: only nonsense lies that far.
REPAIRED_BEYOND_Z = 6.0
ABSURD_BEYOND_Z = 12.0
FEWEST_AMOUNTS = 100  # fewer of one kind say little about how they usually are
NORMAL_IQR = 1.349  # interquartile range of a standard normal
USER_SHARE, EVEN_SHARES = 0.02, 3.0
VIEWS_REPORTED_SHARE = 0.5


class Decision(enum.StrEnum):
    """What becomes of an event."""

    KEPT = "kept"
    REPAIRED = "repaired"
    LEFT_OUT = "left_out"


class Reason(enum.StrEnum):
    """Why an event or an answer is not kept as it is."""

    IMPLAUSIBLE_TIME = "implausible_time"
    DUPLICATE_CONTENT = "duplicate_content"
    ZERO_AMOUNT = "zero_amount"
    ABSURD_AMOUNT = "absurd_amount"
    ANOMALOUS_AMOUNT = "anomalous_amount"
    UNKNOWN_CATEGORY = "unknown_category"
    ANSWER_TO_NOTHING_SERVED = "answer_to_nothing_served"
    ANSWER_WITHOUT_VIEW = "answer_without_view"
    USER_BEYOND_SHARE = "user_beyond_share"


class Rule(NamedTuple):
    """What a reason leads to, in a word and in a sentence."""

    decision: Decision
    sentence: str


RULES: Mapping[Reason, Rule] = {
    Reason.IMPLAUSIBLE_TIME: Rule(Decision.LEFT_OUT, "it is dated before 1990, by a clock that was never set"),
    Reason.DUPLICATE_CONTENT: Rule(
        Decision.LEFT_OUT, "user, moment, amount, category and merchant are those of an earlier event with another id"
    ),
    Reason.ZERO_AMOUNT: Rule(Decision.LEFT_OUT, "no money moved"),
    Reason.ABSURD_AMOUNT: Rule(
        Decision.LEFT_OUT, f"the amount lies more than {ABSURD_BEYOND_Z:g} robust deviations of the logarithm above the median"
    ),
    Reason.ANOMALOUS_AMOUNT: Rule(
        Decision.REPAIRED,
        f"the amount lies more than {REPAIRED_BEYOND_Z:g} robust deviations of the logarithm above the median; labels see that limit in its place",
    ),
    Reason.UNKNOWN_CATEGORY: Rule(Decision.REPAIRED, "the category says nothing; it is `other`, as in every feature"),
    Reason.ANSWER_TO_NOTHING_SERVED: Rule(
        Decision.LEFT_OUT, "it answers nothing that was served to its user, so nobody knows how likely that was"
    ),
    Reason.ANSWER_WITHOUT_VIEW: Rule(
        Decision.LEFT_OUT, "it was answered and never seen, while views are reported: only answered ones of its kind are known"
    ),
    Reason.USER_BEYOND_SHARE: Rule(
        Decision.LEFT_OUT, "its user has more than the share of the recommendations that one user may have"
    ),
}  # fmt: skip
LEFT_OUT = tuple(str(reason) for reason, rule in RULES.items() if rule.decision == Decision.LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class TransactionColumns:
    """Transactions in the order of the log, all (n,): numbers that are equal where users, flows and contents are.

    A flow is what amounts are compared within (source, currency, direction); a content is what is equal in duplicates beside
    user, moment and amount. ``amounts`` are minor units, ``moments`` microseconds; ``is_vague``: the category says nothing.
    """

    users: IntArray
    moments: IntArray
    amounts: IntArray
    flows: IntArray
    contents: IntArray
    is_vague: BoolArray


class AmountLimits(NamedTuple):
    """For one flow: its median, and above which amounts are repaired and left out, in minor units (infinite: never)."""

    median: float
    repaired_above: float
    absurd_above: float


def transaction_reasons(transactions: TransactionColumns) -> tuple[dict[Reason, BoolArray], dict[int, AmountLimits]]:
    """Return which transactions each rule concerns, and the limits of each flow. The first rule that concerns one decides."""
    limits = {int(flow): amount_limits(transactions.amounts[transactions.flows == flow]) for flow in np.unique(transactions.flows)}  # fmt: skip
    repaired, absurd = (
        np.array([limits[flow][place] for flow in transactions.flows.tolist()], dtype=np.float64) for place in (1, 2)
    )
    return {
        Reason.DUPLICATE_CONTENT: duplicates(transactions),
        Reason.ZERO_AMOUNT: transactions.amounts == 0,
        Reason.ABSURD_AMOUNT: transactions.amounts > absurd,
        Reason.ANOMALOUS_AMOUNT: transactions.amounts > repaired,
        Reason.UNKNOWN_CATEGORY: transactions.is_vague,
    }, limits


def implausible_times(moments: IntArray) -> BoolArray:
    """Say which moments (n,), in microseconds, are those of a clock that was never set."""
    return np.asarray(moments < EARLIEST_MICROSECONDS)


def duplicates(transactions: TransactionColumns) -> BoolArray:
    """Say which transactions (n,) repeat an earlier one of the log under another id; those on the full hour do not count."""
    columns = (transactions.contents, transactions.amounts, transactions.moments, transactions.users)
    order = np.lexsort((np.arange(transactions.users.size), *columns))
    repeats = np.ones(max(order.size - 1, 0), dtype=np.bool_)
    for column in columns:
        repeats &= column[order][1:] == column[order][:-1]
    found = np.zeros(order.size, dtype=np.bool_)
    found[order[1:]] = repeats
    return np.asarray(found & (transactions.moments % HOUR_MICROSECONDS != 0))


def amount_limits(amounts: IntArray) -> AmountLimits:
    """Return the limits of one flow, from median and interquartile range of the logarithms of its amounts."""
    positive = amounts[amounts > 0]
    if positive.size < FEWEST_AMOUNTS:
        return AmountLimits(float(np.median(positive)) if positive.size else 0.0, math.inf, math.inf)
    low, middle, high = (float(value) for value in np.quantile(np.log(positive), (0.25, 0.5, 0.75)))
    spread = (high - low) / NORMAL_IQR
    if spread <= 0.0:
        return AmountLimits(math.exp(middle), math.inf, math.inf)
    return AmountLimits(
        math.exp(middle),
        float(np.floor(np.exp(middle + REPAIRED_BEYOND_Z * spread))),
        float(np.floor(np.exp(middle + ABSURD_BEYOND_Z * spread))),
    )


class FeedbackReasons(NamedTuple):
    """Which served recommendations each rule concerns, whether views are reported at all, and how many one user may have."""

    reasons: dict[Reason, BoolArray]
    views_are_reported: bool
    most_of_a_user: int


def feedback_reasons(
    users: Sequence[bytes], prediction_ids: Sequence[bytes], *, is_seen: BoolArray, is_answered: BoolArray
) -> FeedbackReasons:
    """Return what becomes of served recommendations (n,) that were seen or answered.

    Where hosts report views, an answer without one is left out: among recommendations without a view only the answered
    ones are known, so they would bias the rewards. Where most answers have no view, views are
    not reported, and answers begin their windows themselves.
    """
    seen_answers, answers = int((is_answered & is_seen).sum()), int(is_answered.sum())
    reported = answers > 0 and seen_answers >= VIEWS_REPORTED_SHARE * answers
    unseen = is_answered & ~is_seen if reported else np.zeros(len(users), dtype=np.bool_)
    most = most_of_a_user(len(users), len(set(users)))
    beyond = beyond_share(users, prediction_ids, most=most)
    return FeedbackReasons({Reason.ANSWER_WITHOUT_VIEW: unseen, Reason.USER_BEYOND_SHARE: beyond}, reported, most)


def most_of_a_user(rows: int, users: int) -> int:
    """Return how many of ``rows`` one of ``users`` may have: two in a hundred, or three even shares where that is more."""
    return math.ceil(max(USER_SHARE, EVEN_SHARES / users) * rows) if users else 0


def beyond_share(users: Sequence[bytes], names: Sequence[bytes], *, most: int) -> BoolArray:
    """Say which rows (n,) to leave out so that no user has more than ``most``: those with the greatest checksums of their names.

    The checksum knows neither time nor answer, so what stays of a user is a fair sample of all that the user did.
    """
    found = np.zeros(len(users), dtype=np.bool_)
    heavy = {user for user, count in Counter(users).items() if count > most}
    if not heavy:
        return found
    rows: dict[bytes, list[int]] = {}
    for row, user in enumerate(users):
        if user in heavy:
            rows.setdefault(user, []).append(row)
    for members in rows.values():
        members.sort(key=lambda row: (zlib.crc32(names[row]), names[row]))
        found[members[most:]] = True
    return found


def first_reason(reasons: Mapping[Reason, BoolArray], *, rows: int) -> list[str | None]:
    """Return for each of ``rows`` rows the first reason that concerns it, None for one that is kept."""
    chosen: list[str | None] = [None] * rows
    for reason in reversed(Reason):
        for row in np.flatnonzero(reasons[reason]).tolist() if reason in reasons else ():
            chosen[row] = str(reason)
    return chosen
