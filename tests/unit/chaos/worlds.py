"""A small healthy run, as values, for tests that break one thing in it."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tests.chaos.oracle.counting import counted
from tests.chaos.oracle.replayed_states import FIELDS, VERSION, Seen, histories_of, milliseconds
from tests.chaos.oracle.world import (
    DEAD,
    DEPLOYMENTS,
    EVENTS,
    MODELS,
    PREDICTIONS,
    PROGRESS,
    STATUS,
    THRESHOLDS,
    ArchivedEvent,
    DeadLetter,
    Deployment,
    Epoch,
    Job,
    Json,
    OutboxRow,
    Pane,
    Record,
    Send,
    StoredState,
    Training,
    World,
    key_of,
)

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
NOON_MS = milliseconds(NOON)
LIMITS = {"recommendation": 2, "segmentation": 1, "spending": 5, "goal": 1}
BATCH = 4
Delivered = tuple[str, bytes, Json | None]


def name_of(text: str) -> str:
    """Return a name that is derived from ``text``."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


def event(number: int, user: str, kind: str, **fields: Any) -> Json:  # noqa: ANN401 - an event's own fields
    """Return an event as a producer writes it."""
    at = (NOON - dt.timedelta(hours=1) + dt.timedelta(seconds=number)).isoformat()
    return {
        "event_type": kind, "event_id": name_of(f"event-{number}"), "user_id": name_of(user), "occurred_at": at, "consent": True, **fields,
    }  # fmt: skip


def paid(number: int, user: str = "anna", **fields: Any) -> Json:  # noqa: ANN401 - see above
    """Return a transaction."""
    about = {"interaction_type": "create", "amount_minor": 100 + number, "currency": "USD", "category": "Food", "transaction_type": "debit"}  # fmt: skip
    return event(number, user, "transaction_creation", **about, **fields)


def bytes_of(item: Json) -> bytes:
    """Return an event as it is in the topic."""
    return msgspec.json.encode(item)


def delivered() -> dict[int, list[Delivered]]:
    """Return the content of each partition: kind, bytes and event."""
    first: list[Json] = [paid(number) for number in range(12)]
    second: list[Json] = [
        event(20, "bert", "recommendation_interaction", recommendation_id="1", interaction_type=step)
        for step in ("view",)
    ]
    second += [
        event(21 + place, "bert", "recommendation_interaction", recommendation_id="1", interaction_type=step)
        for place, step in enumerate(("click", "dismiss", "helpful"))
    ]
    second += [
        event(30, "carl", "goal_modification", goal_id="g", interaction_type="create", target_minor=5),
        event(31, "carl", "goal_modification", goal_id="g", interaction_type="achieve"),
        paid(32, "carl", source="other", consent=False) | {"consent": False},
    ]
    parts = {0: [*first[:6], first[2], *first[6:]], 1: second}
    sent: dict[int, list[Delivered]] = {
        place: [("good", bytes_of(item), item) for item in items] for place, items in parts.items()
    }
    sent[1].insert(2, ("no_value", b"{", None))
    return sent


def healthy() -> World:
    """Return a run in which every invariant holds."""
    sent = delivered()
    world = World(
        run={"thresholds": LIMITS, "minimums": dict.fromkeys(_counted_things(), 1), "caught_up_seconds": 3.0, "zombies_refused": 1},
        timeline=[{"phase": "end", "kind": "freeze", "target": "streams-1", "evidence": {"was": "working"}}],
    )  # fmt: skip
    world.records = {
        EVENTS: [
            Record(partition, offset, NOON_MS, b"k", raw)
            for partition, items in sent.items()
            for offset, (_, raw, _) in enumerate(items)
        ]
    }
    world.begins = dict.fromkeys([(EVENTS, 0), (EVENTS, 1), (PREDICTIONS, 0)], 0)
    world.ends = {(EVENTS, 0): len(sent[0]), (EVENTS, 1): len(sent[1]), (PREDICTIONS, 0): 0}
    world.ledger = dict(world.ends)
    _write_journal(world, sent)
    _count(world, sent)
    _close_epochs(world)
    _deploy(world)
    _announce(world)
    return world


def _counted_things() -> Iterable[str]:
    return ("events", "duplicates", "dead letters", "panes", "epochs", "trainings", "users", "announcements", "deployment states",
            "swaps", "replicas", "predictions", "faults")  # fmt: skip


def _write_journal(world: World, sent: dict[int, list[Delivered]]) -> None:
    world.sends = [
        Send(f"{partition}-{offset}", kind, item is not None, item, hashlib.sha256(raw).hexdigest(), acknowledged=True)
        for partition, items in sent.items()
        for offset, (kind, raw, item) in enumerate(items)
    ]


def _count(world: World, sent: dict[int, list[Delivered]]) -> None:
    archive: list[ArchivedEvent] = []
    panes: list[Pane] = []
    dead_letters: list[DeadLetter] = []
    for partition, items in sent.items():
        for first in range(0, len(items), BATCH):
            numbers: Counter[str] = Counter()
            before = counted(row.payload for row in archive)
            for offset, (_, raw, item) in enumerate(items[first : first + BATCH], first):
                if item is None:
                    dead_letters.append(DeadLetter(EVENTS, partition, offset, "not_json", raw))
                    numbers["dead"] += 1
                elif key_of(item) in {row.key for row in archive}:
                    numbers["duplicates"] += 1
                else:
                    archive.append(_archived(item, partition, offset))
                    numbers["archived"] += 1
                    numbers["without"] += not item["consent"]
            after = counted(row.payload for row in archive)
            counts = {model: {"counted": after[model] - before[model]} for model in MODELS}
            last = min(first + BATCH, len(items))
            panes.append(
                Pane(EVENTS, partition, first, last, last - first, numbers["archived"], numbers["duplicates"], numbers["dead"],
                     numbers["without"], counts, NOON + dt.timedelta(seconds=len(panes)))
            )  # fmt: skip
    world.archive, world.panes, world.dead_letters = archive, panes, dead_letters
    world.states = [_state(user, rows) for user, rows in histories_of(archive).items()]


def _archived(item: Json, partition: int, offset: int) -> ArchivedEvent:
    return ArchivedEvent(
        *key_of(item), item["user_id"], item["event_type"], item["interaction_type"], item["consent"], item.get("source", "host"),
        item, partition, offset,
    )  # fmt: skip


def _state(user: str, rows: Sequence[ArchivedEvent]) -> StoredState:
    history = [Seen(milliseconds(row.occurred_at), row.payload) for row in rows]
    state = msgspec.msgpack.encode([of(history) for _, of in FIELDS])
    return StoredState(user, VERSION, rows[-1].partition, rows[-1].offset, state)


def _close_epochs(world: World) -> None:
    epochs: list[Epoch] = []
    for model in MODELS:
        total, begun, ends = 0, {0: 0, 1: 0}, {0: 0, 1: 0}
        for pane in world.panes:
            total += pane.counted(model)
            ends[pane.partition] = pane.to_offset
            if total >= LIMITS[model]:
                spans = [
                    {
                        "topic": EVENTS,
                        "generation": 1,
                        "partition": place,
                        "from_offset": begun[place],
                        "to_offset": ends[place],
                    }
                    for place in ends
                    if ends[place] > begun[place]
                ]
                number = 1 + sum(row.model == model for row in epochs)
                epochs.append(Epoch(model, number, total, LIMITS[model], spans))
                total, begun = 0, dict(ends)
    world.epochs = epochs
    world.jobs = [Job(row.model, row.epoch, "done") for row in epochs]
    world.trainings = [
        Training(name_of(f"{row.model}{row.epoch}"), row.model, "completed", "champion_kept", [row.epoch])
        for row in epochs
    ]


def _deploy(world: World) -> None:
    world.deployments = [Deployment(model, 2, "1.0.0") for model in MODELS]
    served = {model: {"sequence": 2, "version": "1.0.0"} for model in MODELS}
    status = msgspec.json.encode({"replica_id": "r1", "models": served})
    world.records = {
        **world.records,
        STATUS: [Record(0, 0, NOON_MS, b"r1", b"{}"), Record(0, 1, NOON_MS, b"r1", status)],
        PREDICTIONS: [
            Record(
                0, 0, NOON_MS, b"k", msgspec.json.encode({"event_id": name_of("p"), "occurred_at": NOON.isoformat()})
            )
        ]
        * 2,
    }
    world.predictions = [name_of("p")]


def _announce(world: World) -> None:
    messages: list[tuple[str, Json]] = [(PROGRESS, {"pane": number}) for number in range(len(world.panes))]
    messages += [
        (THRESHOLDS, {"model_type": row.model, "epoch": row.epoch, "counted": row.counted, "threshold": row.threshold, "ranges": row.ranges})
        for row in world.epochs
    ]  # fmt: skip
    messages += [
        (DEPLOYMENTS, {"model_type": model, "sequence": number, "active": number})
        for model in MODELS
        for number in (1, 2)
    ]
    rows = [
        OutboxRow(number, "streams", topic, b"k", msgspec.json.encode(what), is_published=True)
        for number, (topic, what) in enumerate(messages)
    ]
    records: dict[str, list[Record]] = {topic: [] for topic in (PROGRESS, THRESHOLDS, DEPLOYMENTS, DEAD)}
    for row in [*rows, *rows[:3]]:  # at least once: some are published twice
        records[row.topic].append(Record(0, len(records[row.topic]), NOON_MS, row.key, row.payload))
    for dead_letter in world.dead_letters:
        rows.append(OutboxRow(len(rows), "streams", DEAD, b"k", dead_letter.raw, is_published=True))
        headers = {
            "source_topic": dead_letter.topic, "source_partition": str(dead_letter.partition), "source_offset": str(dead_letter.offset), "reason": dead_letter.reason,
        }  # fmt: skip
        records[DEAD].append(Record(0, dead_letter.offset, NOON_MS, b"k", dead_letter.raw, headers))
    world.outbox = rows
    world.records = {**world.records, **records}
