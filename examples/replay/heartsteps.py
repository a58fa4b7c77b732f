"""HeartSteps V1: suggestions to be active, sent at random to 23 people in 2015 (CC BY 4.0; see the set's terms).

Klasnja et al., Annals of Behavioral Medicine 53 (2019). At each decision point of an available person, one of
``active`` (.3), ``sedentary`` (.3) and ``none`` (.4) was drawn. "None" is an action too: leaving it out would bias
what is learned. Thumbs up is a click, and an implementation half an hour later if at least 100 steps followed. Thumbs
down or snooze is a dismissal. No answer is no feedback.

Missing steps stay missing. The steps that followed are in the view's ``additional_data`` for study; they were not
known at the time, and no feature may use them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Literal, NamedTuple

from examples.replay.tables import Row, SortedSource, moment, rows_of
from fincoach_events.events import RecommendationInteraction
from stack.replay.settings import ReplaySettings
from stack.replay.source import envelope

ACTION_SET = "heartsteps-3"
PROPENSITIES = {"active": 0.3, "sedentary": 0.3, "none": 0.4}  # by design; .332/.262 of those sent in this sample
IMPLEMENTED_STEPS = 100.0
_HALF_AN_HOUR = dt.timedelta(minutes=30)
_DISMISSALS = {"bad", "snoozed_for_4_hours", "snoozed_for_12_hours"}
_MISSING = {"", "unknown"}
_NUMBERS = ("slot", "temperature_c", "precip_chance", "steps30_pre", "steps60_pre")

Step = Literal["view", "click", "dismiss", "implement"]


class DecisionFact(NamedTuple):
    """A suggestion at a decision point, or an answer to it."""

    occurred_at: dt.datetime
    interaction: Step
    row: Row


def heartsteps(settings: ReplaySettings) -> SortedSource[DecisionFact]:
    """Return the suggestions and the answers to them."""
    return SortedSource("heartsteps", _facts(settings), _interaction)


def _facts(settings: ReplaySettings) -> Iterator[DecisionFact]:
    for row in rows_of(settings.data_file("heartsteps/decisions.csv.gz")):
        # One row was sent without an action; one has no time.
        if row["available"] == "True" and row["t_utc"] and (row["sent"] == "True") == (row["action"] != "none"):
            decided_at = moment(row["t_utc"])
            yield DecisionFact(decided_at, "view", row)
            yield from _answers(row, decided_at)


def _answers(row: Row, decided_at: dt.datetime) -> Iterator[DecisionFact]:
    if not row["response_t_utc"]:
        return
    answered_at = max(decided_at, moment(row["response_t_utc"]))  # the clocks of seven phones were late
    if row["response"] == "good":
        yield DecisionFact(answered_at, "click", row)
        if row["steps30_post"] and float(row["steps30_post"]) >= IMPLEMENTED_STEPS:
            yield DecisionFact(max(answered_at, decided_at + _HALF_AN_HOUR), "implement", row)
    elif row["response"] in _DISMISSALS:
        yield DecisionFact(answered_at, "dismiss", row)


def _interaction(fact: DecisionFact) -> RecommendationInteraction:
    row = fact.row
    name = f"{row['user']}:{row['decision']}"
    is_view = fact.interaction == "view"
    return RecommendationInteraction(
        **envelope("heartsteps", f"{name}:{fact.interaction}", user=row["user"], occurred_at=fact.occurred_at),
        recommendation_id=f"heartsteps:{name}",
        interaction_type=fact.interaction,
        action_set=ACTION_SET,
        action=row["action"],
        propensity=PROPENSITIES[row["action"]] if is_view else None,
        context=_context(row) if is_view else None,
        additional_data={"steps30_post": float(row["steps30_post"])} if is_view and row["steps30_post"] else None,
    )


def _context(row: Row) -> dict[str, float]:
    context = {name: float(row[name]) for name in _NUMBERS if row[name] not in _MISSING}
    if row["in_transit"]:
        context["in_transit"] = float(row["in_transit"] == "True")
    return context
