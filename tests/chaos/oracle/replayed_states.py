"""The invariant of user states: each one equals a replay of the archive by a second reducer, written from the contract. Pure.

A state is an array of fields. :data:`FIELDS` defines each one, in order, as a function of a user's events; a new field
is one more line there.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from tests.chaos.oracle.invariants import Verdict, verdict_of
from tests.chaos.oracle.world import ArchivedEvent, Json, World, moment

VERSION = 2
DAY = 86_400_000
KEPT_DAYS = 434
RECENT_WINDOW = 31 * DAY
MOST_RECENT, MOST_GOALS, MOST_SCHEDULED, MOST_SHOWN, MOST_VOTES = 512, 32, 64, 256, 8
MOST_BALANCES = 8
SHARED_NAME = "auto_generated"  # the id of many recommendations; their prediction ids tell them apart
CREDIT = -1
SENSIBLE_DAYS = 1e6
CATEGORIES = "groceries dine_out entertainment bills transport shopping health fitness savings income other".split()  # noqa: SIM905 - a sentence of words
FEEDBACK = "view click dismiss implement helpful not_helpful".split()  # noqa: SIM905 - see above
PRODUCTS = "view add_to_cart purchase remove_from_cart".split()  # noqa: SIM905 - see above
SYNONYMS = {
    "groceries": "grocery food supermarket",
    "dine_out": "dining dining_out restaurant restaurants eating_out",
    "entertainment": "leisure",
    "bills": "bill utilities rent housing",
    "transport": "transportation travel",
    "shopping": "retail clothing",
    "health": "healthcare medical",
    "fitness": "gym sport",
    "savings": "saving investment",
    "income": "salary wages",
}
CATEGORY_OF = {word: name for name, words in SYNONYMS.items() for word in words.split()}
OUTCOMES = {"achieve": 1, "fail": 2, "delete": 3}


class Seen(NamedTuple):
    """One event of a user's history; ``at`` is in milliseconds since 1970."""

    at: int
    event: Json

    @property
    def kind(self) -> str:
        """Its event type."""
        return str(self.event["event_type"])

    @property
    def step(self) -> str:
        """Its interaction type."""
        return str(self.event.get("interaction_type", ""))


History = Sequence[Seen]


def _transactions(history: History, *kinds: str) -> list[Seen]:
    return [
        seen
        for seen in history
        if seen.kind == "transaction_creation" and seen.event["transaction_type"] in (kinds or ("debit", "credit"))
    ]


def _amounts(history: History, kind: str) -> int:
    return sum(seen.event["amount_minor"] for seen in _transactions(history, kind))


def _category(event: Json) -> int:
    plain = event["category"].strip().lower().replace(" ", "_").replace("-", "_")
    name = CATEGORY_OF.get(plain, plain)
    return CATEGORIES.index(name if name in CATEGORIES else "other")


def _by_category(history: History) -> list[int]:
    sums = [0] * len(CATEGORIES)
    for seen in _transactions(history, "debit"):
        sums[_category(seen.event)] += seen.event["amount_minor"]
    return sums


def _steps(history: History, kind: str, steps: Sequence[str]) -> list[int]:
    return [sum(seen.kind == kind and seen.step == step for seen in history) for step in steps]


def _recent(history: History) -> list[list[Any]]:
    """The newest transactions in order of time. A transaction that has left the window does not come back."""
    kept: list[list[Any]] = []
    for seen in _transactions(history):
        event = seen.event
        category = _category(event) if event["transaction_type"] == "debit" else CREDIT
        merchant = event.get("merchant")
        mark = zlib.crc32(merchant.encode()) if merchant else 0
        kept.append([seen.at, event["amount_minor"], category, mark, event.get("balance_after_minor")])
        kept.sort(key=lambda item: item[0])  # stable: equal times keep the order of arrival
        newest = kept[-1][0]
        kept = [item for item in kept if item[0] > newest - RECENT_WINDOW][-MOST_RECENT:]
    return kept


def _days(history: History) -> dict[int, int]:
    """The sum of debits of each day, within the days that are kept."""
    sums: dict[int, int] = {}
    for seen in _transactions(history, "debit"):
        day = seen.at // DAY
        if sums and day <= max(sums) - KEPT_DAYS:
            continue
        sums[day] = sums.get(day, 0) + seen.event["amount_minor"]
        sums = {known: total for known, total in sums.items() if known > max(sums) - KEPT_DAYS}
    return dict(sorted(sums.items()))


def _mark(text: str) -> int:
    return zlib.crc32(text.encode())


def _shown(history: History) -> list[int]:
    """The marks of the recommendations shown, newest last; a mark is negative once its recommendation was answered."""
    kept: list[int] = []
    for seen in history:
        if seen.kind != "recommendation_interaction":
            continue
        name, prediction = seen.event["recommendation_id"], seen.event.get("prediction_id")
        by_prediction = UUID(prediction).int % 2**32 if prediction else 0
        if seen.step == "view":
            mark = by_prediction if name == SHARED_NAME else _mark(name)
            if mark not in map(abs, kept):
                kept = [*kept, mark][-MOST_SHOWN:]
            continue
        answered = next((mark for mark in (_mark(name), by_prediction if prediction else None) if mark in kept), None)
        if answered:
            kept[kept.index(answered)] = -answered
    return kept


def _currency(history: History) -> tuple[str, int]:
    """The leading currency and its lead: each transaction in it adds one, each other transaction subtracts one."""
    leader, lead = "", 0
    for seen in _transactions(history):
        currency = seen.event["currency"]
        if currency == leader:
            lead = min(lead + 1, MOST_VOTES)
        elif lead > 0:
            lead -= 1
        else:
            leader, lead = currency, 1
    return leader, lead


def _balances(history: History) -> list[int]:
    """The possible balances: those reported, moved by all later amounts; a report that confirms one of them replaces all."""
    possible: list[int] = []
    newest = -math.inf
    for seen in _transactions(history):
        if seen.at < newest:
            continue  # late: a newer balance already includes it
        newest = seen.at
        moved = seen.event["amount_minor"] * (1 if seen.event["transaction_type"] == "credit" else -1)
        possible = [balance + moved for balance in possible]
        reported = seen.event.get("balance_after_minor")
        if reported is not None:
            possible = [reported] if reported in possible else [*possible, reported][-MOST_BALANCES:]
    return possible


def _session(history: History) -> tuple[int, int]:
    """The session that arrived last, and the time of its newest event."""
    named = [(_mark(seen.event["session_id"]), seen.at) for seen in history if seen.event.get("session_id") is not None]
    if not named:
        return 0, 0
    last = named[-1][0]
    moments = itertools.takewhile(lambda item: item[0] == last, reversed(named))
    return last, max(at for _, at in moments)


# A goal is an array, too; these are the names of its fields.
GOAL = "goal_id created_at kind target_minor due_at status progress updates scored score_sum score_last timed late_days schedule".split()  # noqa: SIM905 - see above


class Goals:
    """The replayed goals of a user."""

    def __init__(self, history: History) -> None:
        self.kept: list[Json] = []
        self.outcomes = {"achieve": 0, "fail": 0}
        for seen in history:
            if seen.kind == "goal_modification":
                self._take(seen)

    def arrays(self) -> list[list[Any]]:
        """Return the goals as they are stored."""
        return [[goal[name] for name in GOAL] for goal in self.kept]

    def _take(self, seen: Seen) -> None:
        event, goal = seen.event, self._find(seen)
        for name, given in (("kind", "goal_kind"), ("target_minor", "target_minor"), ("progress", "progress")):
            if event.get(given) is not None:
                goal[name] = event[given]
        if event.get("due_at") is not None:
            goal["due_at"] = milliseconds(moment(event["due_at"]))
        goal["schedule"] = _schedule(event.get("additional_data") or {}) or goal["schedule"]
        if seen.step == "update":
            self._update(goal, seen)
        elif seen.step in OUTCOMES and goal["status"] == 0:
            goal["status"] = OUTCOMES[seen.step]
            if seen.step in self.outcomes:
                self.outcomes[seen.step] += 1

    def _find(self, seen: Seen) -> Json:
        for goal in reversed(self.kept):
            if goal["goal_id"] == seen.event["goal_id"]:
                goal["created_at"] = min(goal["created_at"], seen.at)
                return goal
        empty = {"goal_id": seen.event["goal_id"], "created_at": seen.at, "kind": None, "target_minor": None, "due_at": None,
                 "status": 0, "progress": None, "updates": 0, "scored": 0, "score_sum": 0.0, "score_last": 0.0, "timed": 0,
                 "late_days": 0.0, "schedule": []}  # fmt: skip
        place = sum(goal["created_at"] <= seen.at for goal in self.kept)
        self.kept.insert(place, empty)
        if len(self.kept) > MOST_GOALS:
            self.kept.remove(min(self.kept, key=lambda goal: (goal["status"] == 0, goal["created_at"])))
        return empty

    def _update(self, goal: Json, seen: Seen) -> None:
        late = _number((seen.event.get("additional_data") or {}).get("late_days"))
        if late is None and goal["updates"] < len(goal["schedule"]):
            late = (seen.at - goal["created_at"]) / DAY - goal["schedule"][goal["updates"]]
        goal["updates"] += 1
        if late is not None:
            goal["timed"] += 1
            goal["late_days"] += late
        if seen.event.get("score") is not None:
            goal["scored"] += 1
            goal["score_sum"] += seen.event["score"]
            goal["score_last"] = seen.event["score"]


def _schedule(extra: Json) -> list[float]:
    given = extra.get("schedule_days")
    numbers = [_number(item) for item in given[:MOST_SCHEDULED]] if isinstance(given, list) else []
    return sorted(number for number in numbers if number is not None)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < SENSIBLE_DAYS else None


# The fields of a state in order: the name of each, and its value after a history.
FIELDS: tuple[tuple[str, Callable[[History], Any]], ...] = (
    ("reducer_version", lambda _: VERSION),
    ("transactions", lambda history: len(_transactions(history))),
    ("first_at", lambda history: min(seen.at for seen in history)),
    ("last_at", lambda history: max(seen.at for seen in history)),
    ("last_debit_at", lambda history: max((seen.at for seen in _transactions(history, "debit")), default=0)),
    ("debits", lambda history: len(_transactions(history, "debit"))),
    ("debit_minor", lambda history: _amounts(history, "debit")),
    ("credits", lambda history: len(_transactions(history, "credit"))),
    ("credit_minor", lambda history: _amounts(history, "credit")),
    ("category_minor", _by_category),
    ("page_views", lambda history: sum(seen.kind == "page_view" for seen in history)),
    ("feedback", lambda history: _steps(history, "recommendation_interaction", FEEDBACK)),
    ("products", lambda history: _steps(history, "purchase", PRODUCTS)),
    ("recent", _recent),
    ("days", lambda history: list(_days(history))),
    ("day_minor", lambda history: list(_days(history).values())),
    ("goals", lambda history: Goals(history).arrays()),
    ("goals_achieved", lambda history: Goals(history).outcomes["achieve"]),
    ("goals_failed", lambda history: Goals(history).outcomes["fail"]),
    ("shown", _shown),
    ("currency", lambda history: _currency(history)[0]),
    ("currency_votes", lambda history: _currency(history)[1]),
    ("balances", _balances),
    ("session", lambda history: _session(history)[0]),
    ("session_at", lambda history: _session(history)[1]),
)


def states_replayed(world: World) -> Verdict:
    """The state of each user equals a replay of the archive up to the user's last event."""
    histories = histories_of(world.archive)
    stored = {row.user_id: row for row in world.states}
    violations = [
        *(f"user {user} has consented events and no state" for user in histories.keys() - stored.keys()),
        *(f"user {user} has a state and no consented event" for user in stored.keys() - histories.keys()),
    ]
    for user, rows in histories.items():
        row = stored.get(user)
        if row is None:
            continue
        place = (rows[-1].partition, rows[-1].offset, VERSION)
        stored_place = (row.partition, row.state_offset, row.reducer_version)
        if stored_place != place:
            violations.append(
                f"the state of {user} has (partition, offset, version) {stored_place}, the archive {place}"
            )
        violations += _differences(user, msgspec.msgpack.decode(row.state), rows)
    return verdict_of(violations, seen=world.with_minimums(users=len(histories)))


def histories_of(archive: Iterable[ArchivedEvent]) -> dict[str, list[ArchivedEvent]]:
    """Return the consented events of each user in the order of the archive."""
    found: dict[str, list[ArchivedEvent]] = defaultdict(list)
    for row in sorted(archive, key=lambda row: (row.partition, row.offset)):
        if row.consent:
            found[row.user_id].append(row)
    return found


def _differences(user: str, state: Sequence[Any], rows: Sequence[ArchivedEvent]) -> Iterator[str]:
    history = [Seen(milliseconds(row.occurred_at), row.payload) for row in rows]
    if len(state) != len(FIELDS):
        yield f"the state of {user} has {len(state)} fields, the oracle knows {len(FIELDS)}"
        return
    for (name, of), found in zip(FIELDS, state, strict=True):
        right = of(history)
        if not _equal(found, right):
            yield f"{name} of {user} is {_short(found)}, a replay of {len(rows)} events gives {_short(right)}"


def milliseconds(at: dt.datetime) -> int:
    """Return milliseconds since 1970."""
    return round(at.timestamp() * 1000.0)


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401 - whatever a state holds
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return (
            isinstance(one, int | float) and isinstance(other, int | float) and math.isclose(one, other, abs_tol=1e-9)
        )
    return bool(one == other)


def _short(value: Any) -> str:  # noqa: ANN401 - see above
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}…"
