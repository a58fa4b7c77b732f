"""Every law of the oracle, in a world where it holds and in worlds where one thing is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.chaos.oracle.invariants import Law, verdict
from tests.chaos.oracle.recount import LAWS, judged, table
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


def breaks(law: str, words: str) -> Callable[[Breakage], Breakage]:
    """Register a breakage that ``law`` must find, with ``words`` in what it says."""

    def register(breakage: Breakage) -> Breakage:
        BREAKAGES.append((law, words, breakage))
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


@breaks("archived_once", "delivered first at")
def _wrong_place(world: World) -> None:
    world.archive = change(world.archive, 0, offset=99)


@breaks("archived_once", "acknowledged and is not in the topic")
def _lost_by_broker(world: World) -> None:
    world.sends = [*world.sends, world.sends[0]._replace(id="lost", sha256="0" * 64)]


@breaks("counts_agree", "spending: panes say 13, the archive 12, the recount 12")
def _counted_twice(world: World) -> None:
    counts = {**world.panes[0].counts, "spending": {"counted": 5}}
    world.panes = change(world.panes, 0, counts=counts)


@breaks("counts_agree", "archived")
def _not_counted(world: World) -> None:
    world.panes = change(world.panes, 0, archived=3)


@breaks("deliveries_accounted", "says (records, archived, duplicates, dead)")
def _duplicate_as_new(world: World) -> None:
    world.panes = change(world.panes, 1, archived=4, duplicates=0)


@breaks("deliveries_accounted", "should not be")
def _good_as_dead(world: World) -> None:
    world.dead_letters = change(world.dead_letters, 0, offset=0)


@breaks("deliveries_accounted", "right is not_json")
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
def _letter_unheard(world: World) -> None:
    world.records = {**world.records, DEAD: []}


@breaks("deliveries_accounted", "the table has not")
def _letter_only_heard(world: World) -> None:
    headers = {**world.records[DEAD][0].headers, "source_offset": "77"}
    world.records = {**world.records, DEAD: [*world.records[DEAD], world.records[DEAD][0]._replace(headers=headers)]}


@breaks("panes_join", "a hole")
def _hole(world: World) -> None:
    world.panes = [pane for number, pane in enumerate(world.panes) if number != 1]


@breaks("panes_join", "an overlap")
def _overlap(world: World) -> None:
    world.panes = change(world.panes, 1, from_offset=3)


@breaks("panes_join", "the ledger of")
def _ledger_behind(world: World) -> None:
    world.ledger = {**world.ledger, (EVENTS, 0): 1}


@breaks("panes_join", "the partition at")
def _not_caught_up(world: World) -> None:
    world.ends = {**world.ends, (EVENTS, 1): 50}


@breaks("epochs_whole", "no whole panes")
def _half_a_pane(world: World) -> None:
    spans = [{**span, "to_offset": span["to_offset"] - 1} for span in world.epochs[-1].ranges]
    world.epochs = change(world.epochs, len(world.epochs) - 1, ranges=spans)


@breaks("epochs_whole", "the one before ended at")
def _epoch_hole(world: World) -> None:
    spans = [{**span, "from_offset": span["from_offset"] + 4} for span in world.epochs[0].ranges]
    world.epochs = change(world.epochs, 0, ranges=spans)


@breaks("epochs_whole", "before its last pane")
def _too_late(world: World) -> None:
    world.run["thresholds"] = {**world.run["thresholds"], "spending": 3}


@breaks("epochs_whole", "was closed with")
def _too_early(world: World) -> None:
    world.run["thresholds"] = {**world.run["thresholds"], "spending": 9}


@breaks("epochs_whole", "one is missing")
def _missing_epoch(world: World) -> None:
    world.epochs = [row for row in world.epochs if (row.model, row.epoch) != ("spending", 2)]


@breaks("epochs_whole", "numbered")
def _wrong_number(world: World) -> None:
    world.epochs = change(world.epochs, 0, epoch=7)


@breaks("epochs_said_once", "never published")
def _unsaid(world: World) -> None:
    world.records = {**world.records, THRESHOLDS: world.records[THRESHOLDS][1:]}


@breaks("epochs_said_once", "not equal")
def _said_otherwise(world: World) -> None:
    said = msgspec.json.decode(world.records[THRESHOLDS][0].value or b"")
    other = Record(0, 99, NOON_MS, b"k", msgspec.json.encode({**said, "event_id": "other"}))
    world.records = {**world.records, THRESHOLDS: [*world.records[THRESHOLDS], other]}


@breaks("epochs_said_once", "other ranges")
def _other_ranges(world: World) -> None:
    world.epochs = change(world.epochs, 0, ranges=[])


@breaks("trained_once", "has 2 jobs")
def _two_jobs(world: World) -> None:
    world.jobs = [*world.jobs, world.jobs[0]]


@breaks("trained_once", "2 ended trainings")
def _trained_twice(world: World) -> None:
    world.trainings = [*world.trainings, world.trainings[0]._replace(id="again")]


@breaks("trained_once", "0 ended trainings")
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


@breaks("outbox_heard", "is not marked")
def _never_relayed(world: World) -> None:
    world.outbox = change(world.outbox, 0, is_published=False)


@breaks("outbox_heard", "is marked and not on")
def _marked_and_lost(world: World) -> None:
    world.records = {**world.records, PROGRESS: world.records[PROGRESS][4:]}


@breaks("outbox_heard", "no outbox row said")
def _said_without_a_row(world: World) -> None:
    world.outbox = world.outbox[1:]


@breaks("outbox_heard", "no outbox row said")
def _sent_again_without_a_row(world: World) -> None:
    world.records = {**world.records, EVENTS: change(world.records[EVENTS], 0, headers={"retry_of": "1"})}


@breaks("states_grow", "came first after")
def _sequence_falls(world: World) -> None:
    world.records = {**world.records, DEPLOYMENTS: world.records[DEPLOYMENTS][::-1]}


@breaks("states_grow", "two contents")
def _sequence_reused(world: World) -> None:
    said = msgspec.json.decode(world.records[DEPLOYMENTS][-1].value or b"")
    other = Record(0, 99, NOON_MS, b"k", msgspec.json.encode({**said, "active": "another"}))
    world.records = {**world.records, DEPLOYMENTS: [*world.records[DEPLOYMENTS], other]}


@breaks("states_grow", "the database's is 3")
def _topic_behind(world: World) -> None:
    world.deployments = change(world.deployments, 0, sequence=3)


@breaks("replicas_serve_last", "desired is")
def _stale_replica(world: World) -> None:
    world.deployments = change(world.deployments, 0, version="2.0.0")


@breaks("replicas_serve_last", "never said a word")
def _missing_replica(world: World) -> None:
    world.run["replicas"] = ["r1", "r2"]


@breaks("replicas_serve_last", "has left")
def _left(world: World) -> None:
    world.run["replicas"] = ["r1"]
    world.records = {**world.records, STATUS: [*world.records[STATUS], Record(0, 2, NOON_MS, b"r1", None)]}


@breaks("predictions_kept", "is not archived")
def _answer_lost(world: World) -> None:
    world.predictions = []


@breaks("predictions_kept", "archived 2 times")
def _answer_twice(world: World) -> None:
    world.predictions = [*world.predictions, *world.predictions]


@breaks("predictions_kept", "never logged")
def _answer_invented(world: World) -> None:
    world.records = {**world.records, PREDICTIONS: []}


def _with_a_clock_ahead(world: World) -> bytes:
    """Let the only answer be an hour ahead of its record; return its bytes."""
    event = msgspec.json.decode(world.records[PREDICTIONS][0].value or b"")
    raw = msgspec.json.encode({**event, "occurred_at": (NOON + dt.timedelta(hours=1)).isoformat()})
    world.records = {**world.records, PREDICTIONS: [Record(0, 0, NOON_MS, b"k", raw)]}
    world.predictions = []
    return raw


@breaks("predictions_kept", "no dead letter")
def _answer_of_a_clock_ahead_lost(world: World) -> None:
    _with_a_clock_ahead(world)


def test_an_answer_of_a_clock_ahead_is_kept_as_a_dead_letter() -> None:
    """What a replica with a wrong clock said would count as lost, although it stands among the dead letters."""
    world = healthy()
    raw = _with_a_clock_ahead(world)
    world.dead_letters = [*world.dead_letters, DeadLetter(PREDICTIONS, 0, 0, "in_the_future", raw)]
    assert judged(world, only=["predictions_kept"])["predictions_kept"].holds


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


def test_every_law_holds_where_nothing_is_wrong() -> None:
    """An oracle that complains about a healthy run proves nothing by complaining."""
    laws = judged(healthy())
    assert all(law.holds for law in laws.values()), table(laws)


@pytest.mark.parametrize(("law", "words", "breakage"), BREAKAGES, ids=[item[2].__name__ for item in BREAKAGES])
def test_a_broken_law_is_found(law: str, words: str, breakage: Breakage) -> None:
    """A run that went wrong would be called right."""
    world = healthy()
    breakage(world)
    found = LAWS[law](world)
    assert not found.holds
    assert words in found.detail


@pytest.mark.parametrize("law", sorted(set(LAWS) - {"caught_up"}))
def test_a_law_that_was_not_shown_does_not_hold(law: str) -> None:
    """A run in which nothing happened would prove everything."""
    world = healthy()
    world.run["minimums"] = dict.fromkeys(world.run["minimums"], 10_000)
    found = LAWS[law](world)
    assert not found.holds
    assert "not shown" in found.detail


def test_every_law_has_a_test_that_breaks_it() -> None:
    """A law that cannot fail would be added unnoticed."""
    assert {law for law, _, _ in BREAKAGES} == set(LAWS)


def test_an_unacknowledged_send_may_have_arrived_or_not() -> None:
    """A producer that was killed before it heard the answer would make a right run wrong."""
    world = healthy()
    world.sends = [send._replace(acknowledged=False) for send in world.sends]
    world.sends = [*world.sends, world.sends[0]._replace(id="gone", sha256="1" * 64)]
    laws = judged(world)
    assert all(law.holds for law in laws.values()), table(laws)


def test_an_event_ahead_of_its_record_must_be_refused() -> None:
    """A producer's clock that jumps would be blamed on the product."""
    world = healthy()
    world.records = {**world.records, EVENTS: change(world.records[EVENTS], 0, at_ms=NOON_MS - 7_200_000)}
    found = LAWS["deliveries_accounted"](world)
    assert "should be a dead letter" in found.detail


@pytest.mark.parametrize(("minutes_later", "holds"), [(0, True), (1, False)])
def test_a_pane_that_closed_long_before_another_closed_no_epoch(minutes_later: int, *, holds: bool) -> None:
    """An epoch that goes on taking panes after its threshold would be called right."""
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
    found = LAWS["epochs_whole"](world)
    assert found.holds is holds, found


def test_a_longer_run_needs_more_faults() -> None:
    """A run of a quarter of an hour with five faults would be called a storm."""
    world = healthy()
    world.run["seconds"] = 900
    assert "1 faults, at least 100" in LAWS["faults_hit"](world).detail
    world.run["settings"] = {"only": ["freeze"]}
    assert LAWS["faults_hit"](world).holds


def test_many_complaints_are_cut_short() -> None:
    """A broken run of a million events would print a million lines."""
    found = verdict([f"complaint {number}" for number in range(1_000)], seen={"events": (5, 1)})
    assert found == Law(
        holds=False, detail="complaint 0; complaint 1; complaint 2; complaint 3 … and 996 more (5 events)"
    )
