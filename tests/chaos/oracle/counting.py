"""Invariants of counting: every event archived once, every record accounted for, contiguous panes, equal sums. Pure."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.oracle.invariants import Verdict, verdict_of
from tests.chaos.oracle.world import (
    DEAD,
    EVENTS,
    LEDGER_TOPICS,
    MODELS,
    ArchivedEvent,
    DeadLetter,
    EventKey,
    Json,
    Pane,
    Record,
    Send,
    World,
    is_ahead,
    key_of,
)

ANSWERS = {"click", "dismiss", "implement", "helpful", "not_helpful"}
OUTCOMES = {"achieve", "fail"}
ENOUGH_TRANSACTIONS = 10
MALFORMED = {"not_json", "unknown_type", "missing_field", "invalid_field"}
# The kind in a journal -> the reasons that the dead letter may give; any other kind is malformed in some way.
REASONS_BY_KIND = {
    "oversized": {"too_large"},
    "key_mismatch": {"key_mismatch"},
    "in_the_future": {"in_the_future"},
    "no_value": {"not_json"},
    "wrong_type": {"invalid_field"},
}
IN_THE_FUTURE = {"in_the_future"}


class Outcome(enum.Enum):
    """What the product must do with a record."""

    ARCHIVED = "archived"
    DUPLICATE = "duplicate"
    DEAD = "a dead letter"
    UNKNOWN = "a record that nobody sent"


@dataclass(slots=True)
class Delivery:
    """A record of the event topic: what must happen to it, the event in it, and the reasons that a dead letter may give."""

    record: Record
    outcome: Outcome
    event: Json | None = None
    reasons: set[str] = field(default_factory=set)

    @property
    def position(self) -> tuple[int, int]:
        """Its partition and offset."""
        return self.record.partition, self.record.offset


@functools.lru_cache(maxsize=1)  # three invariants ask for the same world
def deliveries_of(world: World) -> list[Delivery]:
    """Return all records of the event topic, by partition and offset, each with its required outcome."""
    sends = {send.sha256: send for send in world.sends}
    seen: set[EventKey] = set()
    found = []
    for record in sorted(world.records.get(EVENTS, ()), key=lambda item: item[:2]):
        delivery = _delivery(record, sends.get(hashlib.sha256(record.value or b"").hexdigest()))
        if delivery.event is not None:
            key = key_of(delivery.event)
            delivery.outcome = Outcome.DUPLICATE if key in seen else Outcome.ARCHIVED
            seen.add(key)
        found.append(delivery)
    return found


def _delivery(record: Record, send: Send | None) -> Delivery:
    if send is None:
        return Delivery(record, Outcome.UNKNOWN)
    if not send.valid or send.event is None:
        return Delivery(record, Outcome.DEAD, reasons=REASONS_BY_KIND.get(send.kind, MALFORMED))
    if is_ahead(key_of(send.event)[1], record):
        return Delivery(record, Outcome.DEAD, reasons=IN_THE_FUTURE)
    return Delivery(record, Outcome.ARCHIVED, send.event)


def counted(events: Iterable[Json]) -> Counter[str]:
    """Return what ``events``, in the order of the archive, add to each model's data set."""
    counts: Counter[str] = Counter()
    transactions: Counter[str] = Counter()
    for event in events:
        if not event["consent"]:
            continue
        kind, step = event["event_type"], event.get("interaction_type", "")
        if kind == "transaction_creation":
            transactions[event["user_id"]] += 1
            counts["spending"] += 1
            counts["segmentation"] += transactions[event["user_id"]] == ENOUGH_TRANSACTIONS
        counts["recommendation"] += kind == "recommendation_interaction" and step in ANSWERS
        counts["goal"] += kind == "goal_modification" and step in OUTCOMES
    return counts


def archived_once(world: World, deliveries: Sequence[Delivery]) -> Verdict:
    """Every acknowledged valid event is archived once, as sent and at its first delivery; nothing else is archived."""
    first = {key_of(item.event): item for item in deliveries if item.event and item.outcome is Outcome.ARCHIVED}
    archived = Counter(row.key for row in world.archive)
    return verdict_of(
        [
            *_lost_by_the_broker(world),
            *(f"event {key[0]} was delivered and is not archived" for key in first if key not in archived),
            *(f"event {key[0]} is archived {number} times" for key, number in archived.items() if number > 1),
            *_wrong_rows(world.archive, first),
        ],
        seen=world.with_minimums(events=len(archived)),
    )


def _lost_by_the_broker(world: World) -> Iterator[str]:
    """Each acknowledged send must have its own record, even if the same bytes were sent several times, as duplicates are."""
    delivered = Counter(hashlib.sha256(record.value or b"").hexdigest() for record in world.records.get(EVENTS, ()))
    acknowledged: Counter[str] = Counter()
    for send in world.sends:
        acknowledged[send.sha256] += send.acknowledged
        if send.acknowledged and acknowledged[send.sha256] > delivered[send.sha256]:
            yield f"send {send.id} was acknowledged and is not in the topic"


def _wrong_rows(rows: Iterable[ArchivedEvent], first: Mapping[EventKey, Delivery]) -> Iterator[str]:
    for row in rows:
        delivery = first.get(row.key)
        if delivery is None or delivery.event is None:
            yield f"event {row.event_id} is archived and nobody sent it"
            continue
        event = delivery.event
        if row.payload != event:
            yield f"event {row.event_id} is archived with another payload than was sent"
        columns = (event["user_id"], event["event_type"], event["consent"], event.get("source", "host"))
        if (row.user_id, row.event_type, row.consent, row.source) != columns:
            yield f"event {row.event_id} is archived with columns that are not those of its payload"
        if (row.partition, row.offset) != delivery.position:
            yield f"event {row.event_id} is archived at {row.partition}/{row.offset}, first delivered at {delivery.position}"


def counts_agree(world: World, deliveries: Sequence[Delivery]) -> Verdict:
    """Sum of panes = archive = recount of what was sent, in total and for each model."""
    sent = [item.event for item in deliveries if item.event and item.outcome is Outcome.ARCHIVED]
    rows = sorted(world.archive, key=lambda row: (row.partition, row.offset))
    panes = [pane for pane in world.panes if pane.topic == EVENTS]
    by_panes = Counter({model: sum(pane.counted(model) for pane in panes) for model in MODELS})
    by_panes["archived"] = sum(pane.archived for pane in panes)
    by_panes["without consent"] = sum(pane.not_consented for pane in panes)
    by_archive, by_recount = _with_totals([row.payload for row in rows]), _with_totals(sent)
    violations = [
        f"{name}: the panes have {by_panes[name]:,}, the archive {by_archive[name]:,}, the recount {by_recount[name]:,}"
        for name in (*MODELS, "archived", "without consent")
        if not by_panes[name] == by_archive[name] == by_recount[name]
    ]
    return verdict_of(violations, seen=world.with_minimums(events=len(rows)))


def _with_totals(events: Sequence[Json]) -> Counter[str]:
    counts = counted(events)
    counts["archived"] = len(events)
    counts["without consent"] = sum(not event["consent"] for event in events)
    return counts


def deliveries_accounted(world: World, deliveries: Sequence[Delivery]) -> Verdict:
    """Deliveries = archived + duplicates + dead letters, in every pane; each dead letter with its reason and its source."""
    outcomes = Counter(item.outcome for item in deliveries)
    dead_letters = {(row.partition, row.offset): row for row in world.dead_letters if row.topic == EVENTS}
    violations = [
        *(f"{item.position} is a record that nobody sent" for item in deliveries if item.outcome is Outcome.UNKNOWN),
        *_read_whole(world),
        *_wrong_panes(world.panes, deliveries),
        *_wrong_dead_letters(dead_letters, deliveries),
        *_unpublished_dead_letters(world),
    ]
    seen = world.with_minimums(duplicates=outcomes[Outcome.DUPLICATE], dead_letters=len(dead_letters))
    return verdict_of(violations, seen={"events": (len(deliveries), world.minimum("events")), **seen})


def _read_whole(world: World) -> Iterator[str]:
    """The oracle itself must have read every record; otherwise it would judge half a run."""
    found = Counter((EVENTS, record.partition) for record in world.records.get(EVENTS, ()))
    for place, end in world.ends.items():
        if place[0] == EVENTS and found[place] != end - world.begins.get(place, 0):
            yield f"{place} holds {end - world.begins.get(place, 0)} offsets, {found[place]} records were read"


def _wrong_panes(panes: Iterable[Pane], deliveries: Iterable[Delivery]) -> Iterator[str]:
    by_partition: dict[int, dict[int, Outcome]] = defaultdict(dict)
    for item in deliveries:
        by_partition[item.record.partition][item.record.offset] = item.outcome
    for pane in panes:
        if pane.topic != EVENTS:
            continue
        outcomes = by_partition[pane.partition]
        expected = Counter(outcomes[offset] for offset in range(pane.from_offset, pane.to_offset) if offset in outcomes)
        recorded = (pane.records, pane.archived, pane.duplicates, pane.dead_lettered)
        right = (expected.total(), expected[Outcome.ARCHIVED], expected[Outcome.DUPLICATE], expected[Outcome.DEAD])
        if recorded != right:
            yield f"{pane} has (records, archived, duplicates, dead) {recorded}, expected {right}"


def _wrong_dead_letters(
    dead_letters: Mapping[tuple[int, int], DeadLetter], deliveries: Iterable[Delivery]
) -> Iterator[str]:
    expected = {item.position: item for item in deliveries if item.outcome is Outcome.DEAD}
    for place in dead_letters.keys() - expected.keys():
        yield f"the record at {place} is a dead letter ({dead_letters[place].reason}) and should not be"
    for place, item in expected.items():
        dead_letter = dead_letters.get(place)
        if dead_letter is None:
            yield f"the record at {place} should be a dead letter"
        elif dead_letter.reason not in item.reasons:
            yield f"the dead letter of {place} has the reason {dead_letter.reason}, expected {' or '.join(sorted(item.reasons))}"
        elif dead_letter.raw != (item.record.value or b""):
            yield f"the dead letter of {place} does not hold the record's bytes"


def _unpublished_dead_letters(world: World) -> Iterator[str]:
    published = {
        (
            headers["source_topic"],
            int(headers["source_partition"]),
            int(headers["source_offset"]),
            headers["reason"],
            record.value or b"",
        )
        for record in world.records.get(DEAD, ())
        if (headers := record.headers).get("source_topic") in LEDGER_TOPICS
    }
    stored = {
        (row.topic, row.partition, row.offset, row.reason, row.raw)
        for row in world.dead_letters
        if row.topic in LEDGER_TOPICS
    }
    for dead_letter in stored - published:
        yield f"the dead letter of {dead_letter[:3]} is not on its topic with reason, source and bytes"
    for dead_letter in published - stored:
        yield f"the dead-letter topic has {dead_letter[:3]}, the table has not"


def panes_contiguous(world: World) -> Verdict:
    """The panes of each partition join from its first offset to the ledger's next offset, which is the partition's end."""
    by_place: dict[tuple[str, int], list[Pane]] = defaultdict(list)
    for pane in world.panes:
        by_place[pane.topic, pane.partition].append(pane)
    violations: list[str] = []
    for place, end in world.ends.items():
        if place[0] in LEDGER_TOPICS:
            violations += _wrong_chain(place, sorted(by_place[place], key=lambda pane: pane.from_offset), world, end)
    return verdict_of(violations, seen=world.with_minimums(panes=len(world.panes)))


def _wrong_chain(place: tuple[str, int], panes: Sequence[Pane], world: World, end: int) -> Iterator[str]:
    expected = world.begins.get(place, 0)
    for pane in panes:
        if pane.from_offset != expected:
            kind = "a gap" if pane.from_offset > expected else "an overlap"
            yield f"{kind} before {pane}: the previous panes end at {expected}"
        expected = pane.to_offset
    if expected != end:
        yield f"the panes of {place} end at {expected}, the partition at {end}"
    if (ledger := world.ledger.get(place, 0)) != end:
        yield f"the ledger of {place} is at {ledger}, the partition ends at {end}"
