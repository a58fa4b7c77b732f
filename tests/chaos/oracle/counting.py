"""The laws of counting: every event archived once, every record accounted for, panes that join, sums that agree. Pure."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.oracle.invariants import Law, verdict
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
# The kind in a journal -> the reasons that the dead letter may give; any other kind is malformed somehow.
REASONS_BY_KIND = {
    "oversized": {"too_large"},
    "key_mismatch": {"key_mismatch"},
    "in_the_future": {"in_the_future"},
    "no_value": {"not_json"},
    "wrong_type": {"invalid_field"},
}
IN_THE_FUTURE = {"in_the_future"}


class Fate(enum.Enum):
    """What has to become of a record."""

    ARCHIVED = "archived"
    DUPLICATE = "duplicate"
    DEAD = "a dead letter"
    UNKNOWN = "a record that nobody sent"


@dataclass(slots=True)
class Delivery:
    """A record of the events' topic with its fate, the event that it holds, and the reasons that a dead letter may give."""

    record: Record
    fate: Fate
    event: Json | None = None
    reasons: set[str] = field(default_factory=set)

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands."""
        return self.record.partition, self.record.offset


@functools.lru_cache(maxsize=1)  # three laws ask for the same world
def deliveries_of(world: World) -> list[Delivery]:
    """Return all records of the events' topic, by partition and offset, each with the fate that it must have."""
    sends = {send.sha256: send for send in world.sends}
    seen: set[EventKey] = set()
    found = []
    for record in sorted(world.records.get(EVENTS, ()), key=lambda item: item[:2]):
        delivery = _delivery(record, sends.get(hashlib.sha256(record.value or b"").hexdigest()))
        if delivery.event is not None:
            key = key_of(delivery.event)
            delivery.fate = Fate.DUPLICATE if key in seen else Fate.ARCHIVED
            seen.add(key)
        found.append(delivery)
    return found


def _delivery(record: Record, send: Send | None) -> Delivery:
    if send is None:
        return Delivery(record, Fate.UNKNOWN)
    if not send.valid or send.event is None:
        return Delivery(record, Fate.DEAD, reasons=REASONS_BY_KIND.get(send.kind, MALFORMED))
    if is_ahead(key_of(send.event)[1], record):
        return Delivery(record, Fate.DEAD, reasons=IN_THE_FUTURE)
    return Delivery(record, Fate.ARCHIVED, send.event)


def counted(events: Iterable[Json]) -> Counter[str]:
    """Return what ``events``, in the order of the archive, count for each model."""
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


def archived_once(world: World, deliveries: Sequence[Delivery]) -> Law:
    """Every acknowledged valid event is archived once, as it was sent and with its first delivery; nothing else is archived."""
    first = {key_of(item.event): item for item in deliveries if item.event and item.fate is Fate.ARCHIVED}
    archived = Counter(row.key for row in world.archive)
    return verdict(
        [
            *_lost_by_the_broker(world),
            *(f"event {key[0]} was delivered and is not archived" for key in first if key not in archived),
            *(f"event {key[0]} is archived {number} times" for key, number in archived.items() if number > 1),
            *_wrong_rows(world.archive, first),
        ],
        seen=world.shown(events=len(archived)),
    )


def _lost_by_the_broker(world: World) -> Iterator[str]:
    """Of bytes that were sent several times, as duplicates are, each acknowledged send must have its record."""
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
        said = (event["user_id"], event["event_type"], event["consent"], event.get("source", "host"))
        if (row.user_id, row.event_type, row.consent, row.source) != said:
            yield f"event {row.event_id} is archived with columns that are not those of its payload"
        if (row.partition, row.offset) != delivery.place:
            yield f"event {row.event_id} is archived at {row.partition}/{row.offset}, delivered first at {delivery.place}"


def counts_agree(world: World, deliveries: Sequence[Delivery]) -> Law:
    """Sum of panes = archive = recount of what was sent, in all and for each model."""
    sent = [item.event for item in deliveries if item.event and item.fate is Fate.ARCHIVED]
    rows = sorted(world.archive, key=lambda row: (row.partition, row.offset))
    panes = [pane for pane in world.panes if pane.topic == EVENTS]
    by_panes = Counter({model: sum(pane.counted(model) for pane in panes) for model in MODELS})
    by_panes["archived"] = sum(pane.archived for pane in panes)
    by_panes["without consent"] = sum(pane.not_consented for pane in panes)
    by_archive, by_recount = _with_totals([row.payload for row in rows]), _with_totals(sent)
    complaints = [
        f"{name}: panes say {by_panes[name]:,}, the archive {by_archive[name]:,}, the recount {by_recount[name]:,}"
        for name in (*MODELS, "archived", "without consent")
        if not by_panes[name] == by_archive[name] == by_recount[name]
    ]
    return verdict(complaints, seen=world.shown(events=len(rows)))


def _with_totals(events: Sequence[Json]) -> Counter[str]:
    counts = counted(events)
    counts["archived"] = len(events)
    counts["without consent"] = sum(not event["consent"] for event in events)
    return counts


def deliveries_accounted(world: World, deliveries: Sequence[Delivery]) -> Law:
    """Deliveries = archived + duplicates + dead letters, in every pane; each dead letter with its reason and its source."""
    fates = Counter(item.fate for item in deliveries)
    letters = {(row.partition, row.offset): row for row in world.dead_letters if row.topic == EVENTS}
    complaints = [
        *(f"{item.place} is a record that nobody sent" for item in deliveries if item.fate is Fate.UNKNOWN),
        *_read_whole(world),
        *_wrong_panes(world.panes, deliveries),
        *_wrong_letters(letters, deliveries),
        *_unheard_letters(world),
    ]
    seen = world.shown(duplicates=fates[Fate.DUPLICATE], dead_letters=len(letters))
    return verdict(complaints, seen={"events": (len(deliveries), world.least("events")), **seen})


def _read_whole(world: World) -> Iterator[str]:
    """What the oracle itself read must be everything, or it judges half a run."""
    found = Counter((EVENTS, record.partition) for record in world.records.get(EVENTS, ()))
    for place, end in world.ends.items():
        if place[0] == EVENTS and found[place] != end - world.begins.get(place, 0):
            yield f"{place} holds {end - world.begins.get(place, 0)} offsets, {found[place]} records were read"


def _wrong_panes(panes: Iterable[Pane], deliveries: Iterable[Delivery]) -> Iterator[str]:
    by_partition: dict[int, dict[int, Fate]] = defaultdict(dict)
    for item in deliveries:
        by_partition[item.record.partition][item.record.offset] = item.fate
    for pane in panes:
        if pane.topic != EVENTS:
            continue
        fates = by_partition[pane.partition]
        must = Counter(fates[offset] for offset in range(pane.from_offset, pane.to_offset) if offset in fates)
        says = (pane.records, pane.archived, pane.duplicates, pane.dead_lettered)
        right = (must.total(), must[Fate.ARCHIVED], must[Fate.DUPLICATE], must[Fate.DEAD])
        if says != right:
            yield f"{pane} says (records, archived, duplicates, dead) {says}, right is {right}"


def _wrong_letters(letters: Mapping[tuple[int, int], DeadLetter], deliveries: Iterable[Delivery]) -> Iterator[str]:
    must = {item.place: item for item in deliveries if item.fate is Fate.DEAD}
    for place in letters.keys() - must.keys():
        yield f"the record at {place} is a dead letter ({letters[place].reason}) and should not be"
    for place, item in must.items():
        letter = letters.get(place)
        if letter is None:
            yield f"the record at {place} should be a dead letter"
        elif letter.reason not in item.reasons:
            yield f"the dead letter of {place} gives {letter.reason}, right is {' or '.join(sorted(item.reasons))}"
        elif letter.raw != (item.record.value or b""):
            yield f"the dead letter of {place} does not hold the record's bytes"


def _unheard_letters(world: World) -> Iterator[str]:
    heard = {
        (
            said["source_topic"],
            int(said["source_partition"]),
            int(said["source_offset"]),
            said["reason"],
            record.value or b"",
        )
        for record in world.records.get(DEAD, ())
        if (said := record.headers).get("source_topic") in LEDGER_TOPICS
    }
    kept = {
        (row.topic, row.partition, row.offset, row.reason, row.raw)
        for row in world.dead_letters
        if row.topic in LEDGER_TOPICS
    }
    for letter in kept - heard:
        yield f"the dead letter of {letter[:3]} is not on its topic with reason, source and bytes"
    for letter in heard - kept:
        yield f"the dead-letter topic has {letter[:3]}, the table has not"


def panes_join(world: World) -> Law:
    """The panes of each partition join from its first offset to the ledger's next one, which is the partition's end."""
    by_place: dict[tuple[str, int], list[Pane]] = defaultdict(list)
    for pane in world.panes:
        by_place[pane.topic, pane.partition].append(pane)
    complaints: list[str] = []
    for place, end in world.ends.items():
        if place[0] in LEDGER_TOPICS:
            complaints += _wrong_chain(place, sorted(by_place[place], key=lambda pane: pane.from_offset), world, end)
    return verdict(complaints, seen=world.shown(panes=len(world.panes)))


def _wrong_chain(place: tuple[str, int], panes: Sequence[Pane], world: World, end: int) -> Iterator[str]:
    expected = world.begins.get(place, 0)
    for pane in panes:
        if pane.from_offset != expected:
            kind = "a hole" if pane.from_offset > expected else "an overlap"
            yield f"{kind} before {pane}: the panes before it end at {expected}"
        expected = pane.to_offset
    if expected != end:
        yield f"the panes of {place} end at {expected}, the partition at {end}"
    if (ledger := world.ledger.get(place, 0)) != end:
        yield f"the ledger of {place} stands at {ledger}, the partition ends at {end}"
