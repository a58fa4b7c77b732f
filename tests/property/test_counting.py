"""The counts of a log do not depend on its batches, repetitions or evaluations."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from hypothesis import event, given, settings
from hypothesis import strategies as st

from backends.database.repositories.datasets import Cursor, OpenDataset, PaneSlice
from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalInteractionType,
    GoalModified,
    RecommendationInteraction,
    RecommendationInteractionType,
    TransactionCreated,
    TransactionType,
)
from modelkit.features import encode_state
from modelkit.statistics.sketches import DatasetStatistics, distinct, merged
from schemas.messages.progress import DatasetCounts
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import ModelType
from streams.batches.folding import States, fold_new
from streams.batches.intake import accept
from streams.epochs.collecting import OpenEpoch, take_panes
from streams.epochs.thresholds import Circumstances
from streams.panes import PaneStatistics, Watermarks, close_pane, encode_pane, encode_statistics
from streams.quality.assessment import assess
from tests.four_models import FOUR_MODELS, data_sets_of_four

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
EXACT = [name for name in DatasetStatistics.__struct_fields__ if name not in {"counts", "users"}]
RULE = ThresholdRule(threshold=40)
USERS = [uuid.uuid5(uuid.NAMESPACE_OID, f"user-{number}") for number in range(4)]


class Appended:
    """A record of a log."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.timestamp = 0
        self.key: bytes | None = None
        self.value: bytes | None = None
        self.headers: list[tuple[str, bytes | None]] = []


@st.composite
def logs(draw: st.DrawFn) -> list[AnyBehavioralEvent]:
    """Draw a log of events of four users, some without consent, in any order of time."""
    return [made(draw, number) for number in range(draw(st.integers(0, 60)))]


def made(draw: st.DrawFn, number: int) -> AnyBehavioralEvent:
    """Draw event ``number`` of a log."""
    common: dict[str, Any] = {
        "event_id": uuid.uuid5(uuid.NAMESPACE_OID, f"event-{number}"),
        "user_id": draw(st.sampled_from(USERS)),
        "occurred_at": NOON + dt.timedelta(hours=draw(st.integers(-2_000, 2_000))),
        "consent": draw(st.sampled_from([True, True, True, False])),
        "source": draw(st.sampled_from(["host", "replay:x"])),
        "session_id": draw(st.sampled_from([None, "s", "t"])),
    }
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return TransactionCreated(
            **common, amount_minor=draw(st.integers(0, 9_999)), currency=draw(st.sampled_from(["USD", "EUR"])), category=draw(st.sampled_from("abc")),
            transaction_type=draw(st.sampled_from(get_args(TransactionType))),
        )  # fmt: skip
    if kind == 1:
        interaction = draw(st.sampled_from(get_args(RecommendationInteractionType)))
        name = draw(st.sampled_from("rst"))
        return RecommendationInteraction(**common, recommendation_id=name, interaction_type=interaction)
    step = draw(st.sampled_from(get_args(GoalInteractionType)))
    return GoalModified(**common, goal_id=draw(st.sampled_from(["g", "h"])), interaction_type=step)


def cut(count: int, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the ranges between ``cuts`` of 0..count."""
    places = sorted({0, count, *(place % (count + 1) for place in cuts)})
    yield from itertools.pairwise(places)


def counted(log: Sequence[AnyBehavioralEvent], cuts: Sequence[int]) -> tuple[States, list[PaneStatistics]]:
    """Fold and count a log in batches cut at ``cuts``."""
    states: States = {}
    watermarks = Watermarks()
    panes = []
    for start, end in cut(len(log), cuts):
        accepted = [accept(log[offset], Appended(offset)) for offset in range(start, end)]
        folded = fold_new(accepted, states, watermarks=watermarks, careful=False)
        panes.append(
            close_pane(data_sets_of_four(), folded.events, duplicate_types=[], dead=[], watermarks=watermarks.seconds)
        )
    return states, panes


def total(panes: Sequence[PaneStatistics], model_type: ModelType) -> tuple[object, ...]:
    """Return the sum of a model's panes, without estimates."""
    statistics = DatasetStatistics()
    for pane in panes:
        statistics = merged(statistics, pane.datasets.get(model_type, DatasetStatistics()))
    users = round(distinct(statistics.users))
    return (statistics.counts, users, *(getattr(statistics, name) for name in EXACT))


@given(logs(), st.lists(st.integers(0, 100), max_size=8), st.lists(st.integers(0, 100), max_size=8))
def test_batches_do_not_matter(log: list[AnyBehavioralEvent], some: list[int], others: list[int]) -> None:
    """Counts, statistics and states do not depend on the batches."""
    states, panes = counted(log, some)
    other_states, other_panes = counted(log, others)
    assert {user: encode_state(state) for user, state in states.items()} == {
        user: encode_state(state) for user, state in other_states.items()
    }
    for model_type in FOUR_MODELS:
        assert total(panes, model_type) == total(other_panes, model_type)


@given(logs(), st.lists(st.integers(0, 100), max_size=8))
def test_what_counts_is_what_a_person_would_count(log: list[AnyBehavioralEvent], cuts: list[int]) -> None:
    """Each model counts what the plan says."""
    _, panes = counted(log, cuts)
    consented = [event for event in log if event.consent]
    paid = [event.user_id for event in consented if isinstance(event, TransactionCreated)]
    expected = {
        "spending": len(paid),
        "segmentation": sum(paid.count(user) >= 10 for user in USERS),
        "recommendation": sum(
            isinstance(event, RecommendationInteraction) and event.interaction_type != "view" for event in consented
        ),
        "goal": sum(
            isinstance(event, GoalModified) and event.interaction_type in {"achieve", "fail"} for event in consented
        ),
    }
    for model_type, number in expected.items():
        counts = total(panes, model_type)[0]
        assert isinstance(counts, DatasetCounts)
        assert counts.counted == number


@st.composite
def pane_rows(draw: st.DrawFn) -> list[PaneSlice]:
    """Draw contiguous panes of two partitions."""
    rows: list[PaneSlice] = []
    for partition in (0, 1):
        start, at = 0, 0
        for _ in range(draw(st.integers(0, 12))):
            end, at = start + draw(st.integers(1, 5)), at + draw(st.integers(0, 3))
            number = draw(st.integers(0, 30))
            counts = DatasetCounts(counted=number, relevant=number, fields_expected=number, fields_present=number)
            statistics = DatasetStatistics(counts=counts, fresh=number)
            sketches = encode_pane(PaneStatistics(datasets={"spending": statistics} if number else {}))
            rows.append(PaneSlice(partition, start, end, NOON + dt.timedelta(seconds=at), {}, sketches))
            start = end
    return rows


def epochs(
    panes: Sequence[PaneSlice], looks: Sequence[int], *, rule: ThresholdRule = RULE
) -> list[tuple[tuple[int, int], ...]]:
    """Return (partition, end) of each epoch, if as many panes are visible at each evaluation as ``looks`` says."""
    cursors = {0: Cursor(0, 0), 1: Cursor(0, 0)}
    accumulated: bytes | None = None
    found = []
    ordered = sorted(panes, key=lambda pane: (pane.closed_at, pane.partition, pane.from_offset))
    for visible in [*looks, len(ordered)]:
        while True:
            waiting = [pane for pane in ordered[:visible] if pane.from_offset >= cursors[pane.partition].next_offset]
            dataset = OpenDataset(id=uuid.uuid4(), epoch=1, accumulated=accumulated)
            epoch = OpenEpoch(dataset=dataset, rule=rule, circumstances=Circumstances())
            waiting.sort(key=lambda pane: (pane.partition, pane.from_offset))
            progress = take_panes(epoch, cursors, waiting, model_type="spending", judge=assess)
            accumulated = encode_statistics(progress.statistics)
            if not progress.evaluation.fired:
                break
            found.append(tuple((span.partition, span.to_offset) for span in progress.ranges()))
            accumulated = None
            for cursor in cursors.values():
                cursor.epoch_from_offset = cursor.next_offset
    return found


@settings(deadline=None)
@given(pane_rows(), st.lists(st.integers(0, 24), max_size=6).map(sorted))
def test_crossings_depend_on_the_panes_alone(panes: list[PaneSlice], looks: list[int]) -> None:
    """Epochs do not depend on how often the data sets are evaluated."""
    assert epochs(panes, looks) == epochs(panes, [])


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[AnyBehavioralEvent], list[int], list[int]]:
    """Draw a log, the order in which its events are sent (repeated, but first times in order), and where batches end."""
    log = draw(logs().filter(bool))
    sent = list(range(len(log)))
    for again in draw(st.lists(st.sampled_from(sent), max_size=30)):
        first = sent.index(again)
        sent.insert(first + 1 + draw(st.integers(0, len(sent) - first - 1)), again)
    return log, sent, sorted({*draw(st.lists(st.integers(1, len(sent)), max_size=12)), len(sent)})


def delivered(
    log: Sequence[AnyBehavioralEvent], sent: Sequence[int], ends: Sequence[int]
) -> tuple[States, list[PaneSlice]]:
    """Fold and count what was sent as a worker does: archived events are duplicates."""
    states: States = {}
    watermarks = Watermarks()
    seen: set[int] = set()
    slices = []
    for start, end in itertools.pairwise([0, *ends]):
        firsts = {sent.index(number, start) for number in set(sent[start:end]) - seen}
        seen |= set(sent[start:end])
        fresh = [accept(log[sent[offset]], Appended(offset)) for offset in sorted(firsts)]
        folded = fold_new(fresh, states, watermarks=watermarks, careful=False)
        again = [
            str(type(log[sent[offset]]).__struct_config__.tag) for offset in range(start, end) if offset not in firsts
        ]
        pane = close_pane(
            data_sets_of_four(), folded.events, duplicate_types=again, dead=[], watermarks=watermarks.seconds
        )
        slices.append(PaneSlice(0, start, end, NOON + dt.timedelta(seconds=start), {}, encode_pane(pane)))
    return states, slices


@settings(deadline=None)
@given(deliveries(), st.integers(1, 8))
def test_repeated_events_move_no_crossing(
    delivery: tuple[list[AnyBehavioralEvent], list[int], list[int]], threshold: int
) -> None:
    """Repeated events change neither states nor crossings."""
    log, sent, ends = delivery
    rule = ThresholdRule(threshold=threshold, quality_gate=0.0, user_share=1.0)
    known = {end: len(set(sent[:end])) for end in ends}  # offset in the repeated log -> offset in the log itself
    states, panes = delivered(log, sent, ends)
    once, plain_panes = delivered(log, list(range(len(log))), sorted(set(known.values())))
    assert {user: encode_state(state) for user, state in states.items()} == {
        user: encode_state(state) for user, state in once.items()
    }
    found = [dict(epoch)[0] for epoch in epochs(panes, [], rule=rule)]
    assert [known[end] for end in found] == [dict(epoch)[0] for epoch in epochs(plain_panes, [], rule=rule)]
    event(f"crossings: {len(found)}")
