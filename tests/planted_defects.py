"""Defects of a known rate planted into events, and what the quality of the data set then says.

Events of Online Retail, OULAD and HeartSteps (the real sets, or small ones that the tests make) go the way of every event:
encoded, taken in, folded, closed into panes, merged and judged. ``python -m tests.planted_defects`` prints planted against
reported rates; a test checks them.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fincoach_events.events import AnyBehavioralEvent, GoalModified, RecommendationInteraction, TransactionCreated
from fincoach_events.events import encode_event as encoded
from modelkit.statistics.sketches import DatasetStatistics, merged
from schemas.vocabulary import GOAL_OUTCOMES, ModelType
from stack.replay.catalogue import open_source
from streams.batches.events import decode_storable_event
from streams.batches.folding import AcceptedEvent, States, fold_new
from streams.batches.intake import take_in
from streams.panes import Watermarks, close_pane
from streams.quality.assessment import QualityAssessment, assess
from tests.four_models import data_sets_of_four
from tests.small_sets import data_folder

RATES = (0.001, 0.01, 0.05, 0.2)
TOLERANCE = 0.01
SEED = 20
PANE_EVENTS = 700
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
APPENDED_AT = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp() * 1000)
EVERY_NTH_USER = {"oulad": 8}  # of 18,000 students; an eighth of them takes an eighth of the time
MODELS = {"onlineretail": "spending", "oulad": "goal", "heartsteps": "recommendation"}

Events = list[AnyBehavioralEvent]
Generator = np.random.Generator


@dataclass(slots=True)
class SentRecord:
    """A record as the reader delivers it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = APPENDED_AT
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True, slots=True)
class Planted:
    """What is sent (events, or bytes under an event's key), and the share of the eligible ones that is defective."""

    sent: Sequence[AnyBehavioralEvent | tuple[AnyBehavioralEvent, bytes]]
    rate: float


Plant = Callable[[Events, float, Generator], Planted]


def added_to(clean: float, planted: float) -> float:
    """Return the rate of a defect planted into data that were partly defective already."""
    return clean + planted * (1 - clean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A kind of defect: the data set it goes into, how it is planted, and where a judgement reports its rate.

    ``prepare`` adds what the real events lack (balances, sessions); ``expected`` computes the right report from that of clean
    data and the planted rate; ``also`` names other dimensions that the defect really moves.
    """

    world: str
    name: str
    shown_in: str
    plant: Plant
    reported: Callable[[QualityAssessment], float]
    prepare: Callable[[Events], Events] = list
    expected: Callable[[float, float], float] = added_to
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one planting; ``moved`` is the largest change of any other dimension."""

    defect: Defect
    planted: float
    clean: float
    reported: float
    moved: float

    @property
    def error(self) -> float:
        """The distance of the report from the right one."""
        return abs(self.reported - self.defect.expected(self.clean, self.planted))


@functools.cache
def events_of(world: str, *, data: Path | None = None, every_nth_user: int = 1) -> tuple[AnyBehavioralEvent, ...]:
    """Return the events of a set that belong to its model, in order; of every n-th user only, if given."""
    kinds = (TransactionCreated, GoalModified, RecommendationInteraction)
    events = (item for item in open_source(world, data=data or data_folder()).events() if isinstance(item, kinds))
    return tuple(event for event in events if event.user_id.int % every_nth_user == 0)


def judged(
    sent: Sequence[AnyBehavioralEvent | tuple[AnyBehavioralEvent, bytes]], model_type: ModelType
) -> QualityAssessment:
    """Return the judgement of a model's data set after ``sent`` went the way of all events."""
    assessment = assess(statistics_of(sent, model_type))
    assert assessment is not None
    return assessment


def statistics_of(
    sent: Sequence[AnyBehavioralEvent | tuple[AnyBehavioralEvent, bytes]],
    model_type: ModelType,
    *,
    pane_events: int = PANE_EVENTS,
) -> DatasetStatistics:
    """Return the merged statistics of a model's data set after ``sent`` went the way of all events."""
    states: States = {}
    watermarks, archived = Watermarks(), set[uuid.UUID]()
    total = DatasetStatistics()
    records = [_record(offset, item) for offset, item in enumerate(sent)]
    for start in range(0, len(records), pane_events):
        intake = take_in(records[start : start + pane_events], decode_storable_event)
        new: list[AcceptedEvent] = []
        again: list[AcceptedEvent] = []
        for item in intake.accepted:
            (again if item.message.event_id in archived else new).append(item)
            archived.add(item.message.event_id)
        folded = fold_new(new, states, watermarks=watermarks, careful=False)
        pane = close_pane(
            data_sets_of_four(),
            folded.events,
            duplicate_types=[str(item.message.__struct_config__.tag) for item in again],
            dead=[(letter.event_type, letter.reason) for letter in intake.dead],
            watermarks=watermarks.seconds,
        )
        total = merged(total, pane.datasets.get(model_type, DatasetStatistics()))
    return total


def outcomes(defect: Defect, *, data: Path | None = None, every_nth_user: int | None = None) -> list[Outcome]:
    """Return the outcome of each rate of a defect."""
    nth = every_nth_user or EVERY_NTH_USER.get(defect.world, 1)
    events = defect.prepare(list(events_of(defect.world, data=data, every_nth_user=nth)))
    model_type = MODELS[defect.world]
    clean = judged(events, model_type)
    found = []
    for rate in RATES:
        planted = defect.plant(events, rate, np.random.default_rng(SEED))
        assessment = judged(planted.sent, model_type)
        moved = [
            abs((assessment.dimensions[name] or 0.0) - (clean.dimensions[name] or 0.0))
            for name in clean.dimensions
            if name not in {defect.shown_in, *defect.also}
        ]
        found.append(
            Outcome(
                defect=defect,
                planted=planted.rate,
                clean=defect.reported(clean),
                reported=defect.reported(assessment),
                moved=max(moved),
            )
        )
    return found


def _record(offset: int, item: AnyBehavioralEvent | tuple[AnyBehavioralEvent, bytes]) -> SentRecord:
    event, value = item if isinstance(item, tuple) else (item, encoded(item))
    return SentRecord(offset=offset, key=str(event.user_id).encode(), value=value)


# ---------------------------------------------------------------- how a defect gets into events


def changing(
    change: Callable[[Any, Generator], AnyBehavioralEvent | tuple[AnyBehavioralEvent, bytes]],
    *,
    where: Callable[[Events], list[int]] | None = None,
    of_eligible: bool = False,
) -> Plant:
    """Plant by changing events at the places that ``where`` returns; the rate is of all events, or of these."""

    def plant(events: Events, rate: float, generator: Generator) -> Planted:
        eligible = where(events) if where else list(range(len(events)))
        whole = len(eligible) if of_eligible else len(events)
        places = generator.choice(eligible, round(rate * whole), replace=False)
        sent: list[Any] = list(events)
        for place in places.tolist():
            sent[place] = change(events[place], generator)
        return Planted(sent, len(places) / whole)

    return plant


def adding(
    made: Callable[[Any, Generator], AnyBehavioralEvent], *, where: Callable[[Events], list[int]] | None = None
) -> Plant:
    """Plant by adding an event after others; the rate is of all that are sent."""

    def plant(events: Events, rate: float, generator: Generator) -> Planted:
        eligible = where(events) if where else list(range(len(events)))
        count = round(rate * len(events) / (1 - rate))
        places = collections.Counter(generator.choice(eligible, count).tolist())
        sent: list[AnyBehavioralEvent] = []
        for place, event in enumerate(events):
            sent.append(event)
            sent.extend(made(event, generator) for _ in range(places[place]))
        return Planted(sent, count / len(sent))

    return plant


def changed(event: AnyBehavioralEvent, **changes: object) -> AnyBehavioralEvent:
    """Return ``event`` with other fields."""
    return msgspec.structs.replace(event, **changes)


def another(event: AnyBehavioralEvent, generator: Generator, **changes: object) -> AnyBehavioralEvent:
    """Return a new event like ``event``."""
    return changed(event, event_id=uuid.UUID(bytes=generator.bytes(16), version=4), **changes)


def broken(**fields: object) -> Callable[[AnyBehavioralEvent, Generator], tuple[AnyBehavioralEvent, bytes]]:
    """Return a function that puts one of ``fields`` into an event's bytes; each violates the contract."""

    def change(event: AnyBehavioralEvent, generator: Generator) -> tuple[AnyBehavioralEvent, bytes]:
        name = str(generator.choice(list(fields)))
        return event, msgspec.json.encode(msgspec.json.decode(encoded(event)) | {name: fields[name]})

    return change


def steps(*kinds: str) -> Callable[[Events], list[int]]:
    """Return a function that finds the events of one of ``kinds`` of interaction."""
    return lambda events: [place for place, event in enumerate(events) if event.interaction_type in kinds]


def later_events(events: Events) -> list[int]:
    """Return the places of events that have an earlier one of their user before them."""
    newest: dict[uuid.UUID, dt.datetime] = {}
    places = []
    for place, event in enumerate(events):
        if newest.get(event.user_id, event.occurred_at) < event.occurred_at:
            places.append(place)
        newest[event.user_id] = max(newest.get(event.user_id, event.occurred_at), event.occurred_at)
    return places


def stale(event: AnyBehavioralEvent, generator: Generator) -> AnyBehavioralEvent:
    """Return ``event`` as if it had happened 45 to 400 days before."""
    return changed(event, occurred_at=event.occurred_at - DAY * float(generator.uniform(45, 400)))


def unfilled_transactions(events: Events, rate: float, generator: Generator) -> Planted:
    """Empty fields that transactions usually have; the rate is of these fields."""
    empty: list[dict[str, object]] = [{"category": "unknown"}, {"merchant": None}, {"country": None}]
    slots = generator.choice(len(events) * len(empty), round(rate * len(events) * len(empty)), replace=False)
    sent = list(events)
    for slot in slots.tolist():
        place, field = divmod(slot, len(empty))
        sent[place] = changed(sent[place], **empty[field])
    return Planted(sent, len(slots) / (len(events) * len(empty)))


def unfilled_goal(event: GoalModified, generator: Generator) -> AnyBehavioralEvent:
    """Return a step of a goal that says nothing."""
    del generator
    return changed(event, score=None, goal_kind=None, due_at=None)


def sent_again(events: Events, rate: float, generator: Generator) -> Planted:
    """Send some events a second time, up to fifty later."""
    places = generator.choice(len(events), round(rate * len(events)), replace=False)
    again = collections.defaultdict(list)
    for place in places.tolist():
        again[min(place + int(generator.integers(50)), len(events) - 1)].append(events[place])
    sent = [item for place, event in enumerate(events) for item in (event, *again[place])]
    return Planted(sent, len(places) / len(events))


def by_one_bot(events: Events, rate: float, generator: Generator) -> Planted:
    """Give one user a share of what counts: whole goals, or single transactions."""
    bot = uuid.UUID(int=7)
    counting = [
        event for event in events if isinstance(event, TransactionCreated) or event.interaction_type in GOAL_OUTCOMES
    ]
    chosen = {
        _subject(counting[place])
        for place in generator.choice(len(counting), round(rate * len(counting)), replace=False)
    }
    sent = [changed(event, user_id=bot) if _subject(event) in chosen else event for event in events]
    given = sum(_subject(event) in chosen for event in counting)
    return Planted(sent, given / len(counting))


def _subject(event: AnyBehavioralEvent) -> object:
    return event.goal_id if isinstance(event, GoalModified) else event.event_id


def with_balances(events: Events) -> Events:
    """Return transactions with the balance after each."""
    balances: collections.Counter[uuid.UUID] = collections.Counter()
    told: Events = []
    for event in events:
        assert isinstance(event, TransactionCreated)
        balances[event.user_id] += event.amount_minor if event.transaction_type == "credit" else -event.amount_minor
        told.append(changed(event, balance_after_minor=balances[event.user_id]))
    return told


def with_sessions(events: Events) -> Events:
    """Return events with a session for each user and day."""
    return [changed(event, session_id=f"{event.user_id}:{event.occurred_at:%Y-%m-%d}") for event in events]


def wrong_balance(event: TransactionCreated, generator: Generator) -> AnyBehavioralEvent:
    """Return a transaction whose balance is off by up to a thousand pounds."""
    return changed(event, balance_after_minor=(event.balance_after_minor or 0) + int(generator.integers(1, 100_000)))


def back_in_session(event: AnyBehavioralEvent, generator: Generator) -> AnyBehavioralEvent:
    """Return another event of the same session, an hour before this one."""
    return another(event, generator, occurred_at=event.occurred_at - HOUR)


def end_of_nothing(event: GoalModified, generator: Generator) -> AnyBehavioralEvent:
    """Return the end of a goal that was never created."""
    step = "achieve" if generator.random() < 0.47 else "fail"  # as often as in the set
    return another(
        event, generator, goal_id=f"never-created-{generator.integers(2**40)}", interaction_type=step, score=None
    )


def answer_to_nothing(event: RecommendationInteraction, generator: Generator) -> AnyBehavioralEvent:
    """Return an answer to what was never shown."""
    return changed(event, recommendation_id=f"never-shown-{generator.integers(2**40)}")


def far_too_large(event: TransactionCreated, generator: Generator) -> AnyBehavioralEvent:
    """Return a transaction of a million times the amount, as far as the contract allows."""
    del generator
    return changed(event, amount_minor=min(event.amount_minor * 1_000_000, 10**12))


def due_in_centuries(event: GoalModified, generator: Generator) -> AnyBehavioralEvent:
    """Return a new goal that is due a thousand times as late."""
    del generator
    assert event.due_at is not None
    return changed(event, due_at=event.occurred_at + (event.due_at - event.occurred_at) * 1_000)


def short_of(dimension: str) -> Callable[[QualityAssessment], float]:
    """Return a function that reads how much a dimension lacks."""
    return lambda assessment: 1.0 - (assessment.dimensions[dimension] or 0.0)


def anomalous(assessment: QualityAssessment) -> float:
    """Return the share of anomalous values."""
    values = sum(part["count"] for part in assessment.parts["values"].values())
    return float(assessment.anomalies / values)


def repeated(assessment: QualityAssessment) -> float:
    """Return duplicates per event."""
    return float(assessment.duplicates / assessment.parts["counts"]["relevant"])


def given_by_one(assessment: QualityAssessment) -> float:
    """Return the share of the user with the most events."""
    return float(assessment.parts["largest_share"])


DEFECTS = (
    Defect(world="onlineretail", name="fields left empty", shown_in="completeness", plant=unfilled_transactions,
           reported=short_of("completeness"), also=frozenset({"diversity"})),
    Defect(world="onlineretail", name="against the contract", shown_in="validity",
           plant=changing(broken(amount_minor=-5, currency="pounds", transaction_type="gift", occurred_at="yesterday")), reported=short_of("validity")),
    Defect(world="onlineretail", name="amounts of nought", shown_in="validity",
           plant=changing(lambda event, _: changed(event, amount_minor=0)), reported=short_of("validity")),
    Defect(world="onlineretail", name="another currency", shown_in="consistency", reported=short_of("consistency"),
           plant=changing(lambda event, _: changed(event, currency="EUR"))),
    Defect(world="onlineretail", name="balance chain broken", shown_in="consistency", reported=short_of("consistency"),
           plant=changing(wrong_balance, where=later_events), prepare=with_balances),
    Defect(world="onlineretail", name="time back in a session", shown_in="consistency", reported=short_of("consistency"),
           plant=adding(back_in_session), prepare=with_sessions),
    Defect(world="onlineretail", name="45 to 400 days late", shown_in="freshness", reported=short_of("freshness"), plant=changing(stale)),
    Defect(world="onlineretail", name="a million times too much", shown_in="anomalies", reported=anomalous, plant=changing(far_too_large)),
    Defect(world="onlineretail", name="sent twice", shown_in="duplicates", reported=repeated, plant=sent_again),
    Defect(world="onlineretail", name="given by one bot", shown_in="largest share", reported=given_by_one, plant=by_one_bot,
           expected=max, also=frozenset({"diversity"})),
    Defect(world="oulad", name="steps that say nothing", shown_in="completeness", reported=short_of("completeness"),
           plant=changing(unfilled_goal, where=steps("create", "update"), of_eligible=True)),
    Defect(world="oulad", name="against the contract", shown_in="validity", reported=short_of("validity"),
           plant=changing(broken(score=250.0, occurred_at="today", interaction_type="won"), where=steps("update"))),
    Defect(world="oulad", name="progress of 4,500 %", shown_in="validity", reported=short_of("validity"),
           plant=changing(lambda event, _: changed(event, progress=45.0), where=steps("update"))),
    Defect(world="oulad", name="end before creation", shown_in="consistency", reported=short_of("consistency"), plant=adding(end_of_nothing),
           also=frozenset({"diversity"})),
    Defect(world="oulad", name="time back in a session", shown_in="consistency", reported=short_of("consistency"),
           plant=adding(back_in_session, where=steps("update")), prepare=with_sessions),
    Defect(world="oulad", name="45 to 400 days late", shown_in="freshness", reported=short_of("freshness"),
           plant=changing(stale, where=steps("update"))),
    Defect(world="oulad", name="due in centuries", shown_in="anomalies", reported=anomalous,
           plant=changing(due_in_centuries, where=steps("create"), of_eligible=True)),
    Defect(world="oulad", name="sent twice", shown_in="duplicates", reported=repeated, plant=sent_again),
    Defect(world="oulad", name="given by one bot", shown_in="largest share", reported=given_by_one, plant=by_one_bot,
           expected=max, also=frozenset({"diversity"})),
    Defect(world="heartsteps", name="answer without a view", shown_in="consistency", reported=short_of("consistency"),
           plant=changing(answer_to_nothing, where=steps("click", "dismiss", "implement"))),
    Defect(world="heartsteps", name="45 to 400 days late", shown_in="freshness", reported=short_of("freshness"),
           plant=changing(stale, where=lambda events: list(range(50, len(events))))),
)  # fmt: skip


def table(defects: Sequence[Defect] = DEFECTS) -> str:
    """Return planted against reported as a Markdown table."""
    lines = [
        "| set | defect | shown in | clean | "
        + " | ".join(f"{rate:.1%} planted" for rate in RATES)
        + " | worst error | others moved |",
        "|---|---|---|---|" + "---|" * (len(RATES) + 2),
    ]
    for defect in defects:
        found = outcomes(defect)
        reported = " | ".join(f"{item.reported:.2%}" for item in found)
        lines.append(
            f"| {defect.world} | {defect.name} | {defect.shown_in} | {found[0].clean:.2%} | {reported} | "
            f"{max(item.error for item in found):.2%} | {max(item.moved for item in found):.2%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
