"""Every invariant of the oracle: it holds in a healthy world, and breaks in worlds where one thing is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.chaos.oracle.invariants import Verdict, verdict_of
from tests.chaos.oracle.recount import INVARIANTS, judged, table
from tests.chaos.oracle.world import (
    DEAD,
    DEPLOYMENTS,
    EVENTS,
    PREDICTIONS,
    PROGRESS,
    STATUS,
    THRESHOLDS,
    DeadLetter,
    Epoch,
    Job,
    Record,
    World,
)
from tests.unit.chaos.worlds import NOON, NOON_MS, healthy

Breakage = Callable[[World], None]
BREAKAGES: list[tuple[str, str, Breakage]] = []


def breaks(invariant: str, words: str) -> Callable[[Breakage], Breakage]:
    """Register a breakage that ``invariant`` must find, with ``words`` in its detail."""

    def register(breakage: Breakage) -> Breakage:
        BREAKAGES.append((invariant, words, breakage))
        return breakage

    return register


def change(rows: Any, place: int, **fields: Any) -> list[Any]:  # noqa: ANN401 - rows of any table
    """Return ``rows`` with one of them changed."""
    return [row._replace(**fields) if number == place else row for number, row in enumerate(rows)]


@breaks("archived_once", "is not archived")
def _lost(world: World) -> None:
    world.archive = world.archive[1:]


@breaks("archived_once", "archived 2 times")
def _twice(world: World) -> None:
    world.archive = [*world.archive, world.archive[3]]


@breaks("archived_once", "nobody sent it")
def _invented(world: World) -> None:
    world.archive = change(world.archive, 0, event_id="00000000-0000-0000-0000-000000000000")


@breaks("archived_once", "another payload")
def _altered(world: World) -> None:
    world.archive = change(world.archive, 0, payload={**world.archive[0].payload, "amount_minor": 1})


@breaks("archived_once", "columns")
def _wrong_column(world: World) -> None:
    world.archive = change(world.archive, 0, consent=False)


@breaks("archived_once", "first delivered at")
def _wrong_place(world: World) -> None:
    world.archive = change(world.archive, 0, offset=99)


@breaks("archived_once", "acknowledged and is not in the topic")
def _lost_by_broker(world: World) -> None:
    world.sends = [*world.sends, world.sends[0]._replace(id="lost", sha256="0" * 64)]


@breaks("counts_agree", "spending: the panes have 13, the archive 12, the recount 12")
def _counted_twice(world: World) -> None:
    counts = {**world.panes[0].counts, "spending": {"counted": 5}}
    world.panes = change(world.panes, 0, counts=counts)


@breaks("counts_agree", "archived")
def _not_counted(world: World) -> None:
    world.panes = change(world.panes, 0, archived=3)


@breaks("deliveries_accounted", "has (records, archived, duplicates, dead)")
def _duplicate_as_new(world: World) -> None:
    world.panes = change(world.panes, 1, archived=4, duplicates=0)


@breaks("deliveries_accounted", "should not be")
def _good_as_dead(world: World) -> None:
    world.dead_letters = change(world.dead_letters, 0, offset=0)


@breaks("deliveries_accounted", "expected not_json")
def _wrong_reason(world: World) -> None:
    world.dead_letters = change(world.dead_letters, 0, reason="too_large")


@breaks("deliveries_accounted", "record's bytes")
def _wrong_bytes(world: World) -> None:
    world.dead_letters = change(world.dead_letters, 0, raw=b"")


@breaks("deliveries_accounted", "nobody sent")
def _stranger(world: World) -> None:
    world.records = {**world.records, EVENTS: change(world.records[EVENTS], 0, value=b"who?")}


@breaks("deliveries_accounted", "records were read")
def _half_read(world: World) -> None:
    world.records = {**world.records, EVENTS: world.records[EVENTS][:-1]}


@breaks("deliveries_accounted", "not on its topic")
def _dead_letter_unpublished(world: World) -> None:
    world.records = {**world.records, DEAD: []}


@breaks("deliveries_accounted", "the table has not")
def _dead_letter_only_published(world: World) -> None:
    headers = {**world.records[DEAD][0].headers, "source_offset": "77"}
    world.records = {**world.records, DEAD: [*world.records[DEAD], world.records[DEAD][0]._replace(headers=headers)]}


@breaks("panes_contiguous", "a gap")
def _gap(world: World) -> None:
    world.panes = [pane for number, pane in enumerate(world.panes) if number != 1]


@breaks("panes_contiguous", "an overlap")
def _overlap(world: World) -> None:
    world.panes = change(world.panes, 1, from_offset=3)


@breaks("panes_contiguous", "the ledger of")
def _ledger_behind(world: World) -> None:
    world.ledger = {**world.ledger, (EVENTS, 0): 1}


@breaks("panes_contiguous", "the partition at")
def _not_caught_up(world: World) -> None:
    world.ends = {**world.ends, (EVENTS, 1): 50}


@breaks("epochs_whole", "not whole panes")
def _half_a_pane(world: World) -> None:
    spans = [{**span, "to_offset": span["to_offset"] - 1} for span in world.epochs[-1].ranges]
    world.epochs = change(world.epochs, len(world.epochs) - 1, ranges=spans)


@breaks("epochs_whole", "the previous one ended at")
def _epoch_gap(world: World) -> None:
    spans = [{**span, "from_offset": span["from_offset"] + 4} for span in world.epochs[0].ranges]
    world.epochs = change(world.epochs, 0, ranges=spans)


@breaks("epochs_whole", "before its last pane")
def _too_late(world: World) -> None:
    world.run["thresholds"] = {**world.run["thresholds"], "spending": 3}


@breaks("epochs_whole", "was closed with")
def _too_early(world: World) -> None:
    world.run["thresholds"] = {**world.run["thresholds"], "spending": 9}


@breaks("epochs_whole", "an epoch is missing")
def _missing_epoch(world: World) -> None:
    world.epochs = [row for row in world.epochs if (row.model, row.epoch) != ("spending", 2)]


@breaks("epochs_whole", "numbered")
def _wrong_number(world: World) -> None:
    world.epochs = change(world.epochs, 0, epoch=7)


@breaks("epochs_published_once", "never published")
def _unpublished(world: World) -> None:
    world.records = {**world.records, THRESHOLDS: world.records[THRESHOLDS][1:]}


@breaks("epochs_published_once", "not equal")
def _published_otherwise(world: World) -> None:
    message = msgspec.json.decode(world.records[THRESHOLDS][0].value or b"")
    other = Record(0, 99, NOON_MS, b"k", msgspec.json.encode({**message, "event_id": "other"}))
    world.records = {**world.records, THRESHOLDS: [*world.records[THRESHOLDS], other]}


@breaks("epochs_published_once", "other ranges")
def _other_ranges(world: World) -> None:
    world.epochs = change(world.epochs, 0, ranges=[])


@breaks("trained_once", "has 2 jobs")
def _two_jobs(world: World) -> None:
    world.jobs = [*world.jobs, world.jobs[0]]


@breaks("trained_once", "2 finished trainings")
def _trained_twice(world: World) -> None:
    world.trainings = [*world.trainings, world.trainings[0]._replace(id="again")]


@breaks("trained_once", "0 finished trainings")
def _never_trained(world: World) -> None:
    world.trainings = world.trainings[1:]


@breaks("trained_once", "still queued")
def _queued(world: World) -> None:
    world.jobs = [*world.jobs, Job("goal", None, "queued")]


@breaks("states_replayed", "transactions of")
def _folded_twice(world: World) -> None:
    state = msgspec.msgpack.decode(world.states[0].state)
    state[1] += 1
    world.states = change(world.states, 0, state=msgspec.msgpack.encode(state))


@breaks("states_replayed", "no state")
def _state_lost(world: World) -> None:
    world.states = world.states[1:]


@breaks("states_replayed", "(partition, offset, version)")
def _state_old(world: World) -> None:
    world.states = change(world.states, 0, state_offset=0)


@breaks("outbox_published", "is not marked")
def _never_relayed(world: World) -> None:
    world.outbox = change(world.outbox, 0, is_published=False)


@breaks("outbox_published", "is marked and not on")
def _marked_and_lost(world: World) -> None:
    world.records = {**world.records, PROGRESS: world.records[PROGRESS][4:]}


@breaks("outbox_published", "without an outbox row")
def _published_without_a_row(world: World) -> None:
    world.outbox = world.outbox[1:]


@breaks("outbox_published", "without an outbox row")
def _sent_again_without_a_row(world: World) -> None:
    world.records = {**world.records, EVENTS: change(world.records[EVENTS], 0, headers={"retry_of": "1"})}


@breaks("sequences_grow", "was first published after")
def _sequence_falls(world: World) -> None:
    world.records = {**world.records, DEPLOYMENTS: world.records[DEPLOYMENTS][::-1]}


@breaks("sequences_grow", "two contents")
def _sequence_reused(world: World) -> None:
    message = msgspec.json.decode(world.records[DEPLOYMENTS][-1].value or b"")
    other = Record(0, 99, NOON_MS, b"k", msgspec.json.encode({**message, "active": "another"}))
    world.records = {**world.records, DEPLOYMENTS: [*world.records[DEPLOYMENTS], other]}


@breaks("sequences_grow", "the database's is 3")
def _topic_behind(world: World) -> None:
    world.deployments = change(world.deployments, 0, sequence=3)


@breaks("replicas_serve_last", "desired is")
def _stale_replica(world: World) -> None:
    world.deployments = change(world.deployments, 0, version="2.0.0")


@breaks("replicas_serve_last", "never reported")
def _missing_replica(world: World) -> None:
    world.run["replicas"] = ["r1", "r2"]


@breaks("replicas_serve_last", "has left")
def _left(world: World) -> None:
    world.run["replicas"] = ["r1"]
    world.records = {**world.records, STATUS: [*world.records[STATUS], Record(0, 2, NOON_MS, b"r1", None)]}


@breaks("predictions_archived", "is not archived")
def _answer_lost(world: World) -> None:
    world.predictions = []


@breaks("predictions_archived", "archived 2 times")
def _answer_twice(world: World) -> None:
    world.predictions = [*world.predictions, *world.predictions]


@breaks("predictions_archived", "never logged")
def _answer_invented(world: World) -> None:
    world.records = {**world.records, PREDICTIONS: []}


def _with_a_clock_ahead(world: World) -> bytes:
    """Let the only prediction be an hour ahead of its record; return its bytes."""
    event = msgspec.json.decode(world.records[PREDICTIONS][0].value or b"")
    raw = msgspec.json.encode({**event, "occurred_at": (NOON + dt.timedelta(hours=1)).isoformat()})
    world.records = {**world.records, PREDICTIONS: [Record(0, 0, NOON_MS, b"k", raw)]}
    world.predictions = []
    return raw


@breaks("predictions_archived", "not a dead letter")
def _answer_of_a_clock_ahead_lost(world: World) -> None:
    _with_a_clock_ahead(world)


def test_an_answer_of_a_clock_ahead_is_kept_as_a_dead_letter() -> None:
    """A prediction from a replica whose clock was ahead is accounted for by its dead letter."""
    world = healthy()
    raw = _with_a_clock_ahead(world)
    world.dead_letters = [*world.dead_letters, DeadLetter(PREDICTIONS, 0, 0, "in_the_future", raw)]
    assert judged(world, only=["predictions_archived"])["predictions_archived"].holds


@breaks("faults_hit", "no evidence")
def _fault_missed(world: World) -> None:
    world.timeline = [{"phase": "end", "kind": "kill", "target": "trainers-1", "evidence": {}}]


@breaks("faults_hit", "no zombie was refused")
def _no_zombie(world: World) -> None:
    world.run["zombies_refused"] = 0


@breaks("caught_up", "in 21.0 s")
def _slow(world: World) -> None:
    world.run["caught_up_seconds"] = 21.0


@breaks("caught_up", "never caught up")
def _stuck(world: World) -> None:
    world.run["caught_up_seconds"] = None


def test_every_invariant_holds_where_nothing_is_wrong() -> None:
    """Every invariant holds in a healthy world."""
    verdicts = judged(healthy())
    assert all(verdict.holds for verdict in verdicts.values()), table(verdicts)


@pytest.mark.parametrize(("invariant", "words", "breakage"), BREAKAGES, ids=[item[2].__name__ for item in BREAKAGES])
def test_a_broken_invariant_is_found(invariant: str, words: str, breakage: Breakage) -> None:
    """Each breakage is found by the invariant that it breaks."""
    world = healthy()
    breakage(world)
    found = INVARIANTS[invariant](world)
    assert not found.holds
    assert words in found.detail


@pytest.mark.parametrize("invariant", sorted(set(INVARIANTS) - {"caught_up"}))
def test_an_invariant_that_was_not_exercised_does_not_hold(invariant: str) -> None:
    """An invariant does not hold if the run exercised it too little."""
    world = healthy()
    world.run["minimums"] = dict.fromkeys(world.run["minimums"], 10_000)
    found = INVARIANTS[invariant](world)
    assert not found.holds
    assert "not exercised" in found.detail


def test_every_invariant_has_a_test_that_breaks_it() -> None:
    """Every invariant has a test that breaks it."""
    assert {invariant for invariant, _, _ in BREAKAGES} == set(INVARIANTS)


def test_an_unacknowledged_send_may_have_arrived_or_not() -> None:
    """A send that was never acknowledged may have arrived or not."""
    world = healthy()
    world.sends = [send._replace(acknowledged=False) for send in world.sends]
    world.sends = [*world.sends, world.sends[0]._replace(id="gone", sha256="1" * 64)]
    verdicts = judged(world)
    assert all(verdict.holds for verdict in verdicts.values()), table(verdicts)


def test_an_event_ahead_of_its_record_must_be_refused() -> None:
    """An event ahead of its record's time must be a dead letter."""
    world = healthy()
    world.records = {**world.records, EVENTS: change(world.records[EVENTS], 0, at_ms=NOON_MS - 7_200_000)}
    found = INVARIANTS["deliveries_accounted"](world)
    assert "should be a dead letter" in found.detail


@pytest.mark.parametrize(("minutes_later", "holds"), [(0, True), (1, False)])
def test_a_pane_that_closed_long_before_another_closed_no_epoch(minutes_later: int, *, holds: bool) -> None:
    """An epoch takes no panes after it has reached its threshold."""
    world = healthy()
    begun = world.panes[0].closed_at
    world.panes = [
        pane._replace(
            closed_at=begun + pane.partition * dt.timedelta(minutes=minutes_later),
            counts={"goal": {"counted": int(pane.partition == 0 and pane.from_offset == 12)}},
        )
        for pane in world.panes
    ]
    spans = [
        {"topic": EVENTS, "partition": number, "from_offset": 0, "to_offset": world.ends[EVENTS, number]}
        for number in (0, 1)
    ]
    world.epochs = [Epoch("goal", 1, 1, 1, spans)]
    world.run["thresholds"] = {"goal": 1}
    found = INVARIANTS["epochs_whole"](world)
    assert found.holds is holds, found


def test_a_longer_run_needs_more_faults() -> None:
    """A longer run needs more faults."""
    world = healthy()
    world.run["seconds"] = 900
    assert "1 faults, at least 100" in INVARIANTS["faults_hit"](world).detail
    world.run["settings"] = {"only": ["freeze"]}
    assert INVARIANTS["faults_hit"](world).holds


def test_many_complaints_are_cut_short() -> None:
    """A verdict shows only the first violations."""
    found = verdict_of([f"violation {number}" for number in range(1_000)], seen={"events": (5, 1)})
    assert found == Verdict(
        holds=False, detail="violation 0; violation 1; violation 2; violation 3 … and 996 more (5 events)"
    )
