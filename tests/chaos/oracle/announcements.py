"""Invariants of announcements: outbox = topics, sequences grow, replicas serve the last state, predictions are archived. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tests.chaos.oracle.invariants import Verdict, verdict_of
from tests.chaos.oracle.world import (
    DEAD,
    DEPLOYMENTS,
    LEDGER_TOPICS,
    OUTBOX_TOPICS,
    PREDICTIONS,
    STATUS,
    Record,
    World,
    is_ahead,
    moment,
)

RETRY_HEADER = "retry_of"  # on dead-lettered records that are sent again
Message = tuple[str, bytes | None, bytes | None]  # topic, key, payload


def outbox_published(world: World) -> Verdict:
    """Every outbox row is marked as published and is in its topic; those topics have no message without a row."""
    rows: Counter[Message] = Counter((row.topic, row.key, row.payload) for row in world.outbox)
    direct_topics = world.run.get("direct_topics", ())  # the run itself has published on these topics, too
    published = Counter((topic, record.key, record.value) for topic, record in _announced(world))
    on_topics = {
        (topic, record.key, record.value)
        for topic in {row.topic for row in world.outbox}
        for record in world.records.get(topic, ())
    }
    violations = [
        *(
            f"outbox row {row.id} of {row.service} for {row.topic} is not marked"
            for row in world.outbox
            if not row.is_published
        ),
        *(
            f"outbox row {row.id} of {row.service} is marked and not on {row.topic}"
            for row in world.outbox
            if row.is_published and (row.topic, row.key, row.payload) not in on_topics
        ),
        *(
            f"{message[0]} has a message without an outbox row"
            for message in published
            if message not in rows and message[0] not in direct_topics
        ),
    ]
    return verdict_of(violations, seen=world.with_minimums(announcements=len(world.outbox)))


def _announced(world: World) -> Iterator[tuple[str, Record]]:
    """Yield the records that only an outbox can have published; plain consumers write their dead letters without one."""
    for topic in OUTBOX_TOPICS:
        for record in world.records.get(topic, ()):
            yield topic, record
    for topic in LEDGER_TOPICS:
        for record in world.records.get(topic, ()):
            if RETRY_HEADER in record.headers:
                yield topic, record
    for record in world.records.get(DEAD, ()):
        if record.headers.get("source_topic") in LEDGER_TOPICS:
            yield DEAD, record


def sequences_grow(world: World) -> Verdict:
    """The sequence of a model's desired states only grows: a new state has a higher one, an old state is only repeated."""
    by_model: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in world.records.get(DEPLOYMENTS, ()):
        state = msgspec.json.decode(record.value or b"null")
        by_model[state["model_type"]].append(state)
    violations: list[str] = []
    for model, states in by_model.items():
        violations += _wrong_sequence(model, states)
    desired = {row.model: row.sequence for row in world.deployments}
    for model, sequence in desired.items():
        last = by_model[model][-1]["sequence"] if by_model.get(model) else None
        if last != sequence:
            violations.append(f"the topic's last state of {model} is {last}, the database's is {sequence}")
    states_seen = sum(len({state["sequence"] for state in states}) for states in by_model.values())
    swaps = sum(max(0, sequence - 1) for sequence in desired.values())
    return verdict_of(violations, seen=world.with_minimums(deployment_states=states_seen, swaps=swaps))


def _wrong_sequence(model: str, states: list[dict[str, Any]]) -> Iterator[str]:
    known: dict[int, dict[str, Any]] = {}
    for state in states:
        sequence = state["sequence"]
        if sequence not in known and known and sequence < max(known):
            yield f"state {sequence} of {model} was first published after state {max(known)}"
        if _content(known.setdefault(sequence, state)) != _content(state):
            yield f"state {sequence} of {model} was published with two contents"


def _content(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state that is published again after a loss has a new envelope; its content must be the same."""
    return {name: state.get(name) for name in ("model_type", "sequence", "phase", "active", "previous")}


def replicas_serve_last(world: World) -> Verdict:
    """Each replica that has not left serves the last desired state of every model."""
    last: dict[bytes | None, Record] = {record.key: record for record in world.records.get(STATUS, ())}
    statuses = [msgspec.json.decode(record.value) for record in last.values() if record.value]
    expected = world.run.get("replicas")
    if expected is not None:
        statuses = [status for status in statuses if status["replica_id"] in expected]
    violations = [
        f"replica {status['replica_id']} serves {row.model} {_served(status, row.model)}, desired is {(row.sequence, row.version)}"
        for status in statuses
        for row in world.deployments
        if _served(status, row.model) != (row.sequence, row.version)
    ]
    missing = set(expected or ()) - {status["replica_id"] for status in statuses}
    violations += [f"replica {name} has left or never reported" for name in sorted(missing)]
    return verdict_of(
        violations, seen=world.with_minimums(replicas=len(statuses), deployment_states=len(world.deployments))
    )


def _served(status: Mapping[str, Any], model: str) -> tuple[int, str] | None:
    served = status["models"].get(model)
    return None if served is None else (served["sequence"], served["version"])


def predictions_archived(world: World) -> Verdict:
    """Predictions archived = predictions logged, without duplicates; those of a replica whose clock was ahead are dead letters."""
    events = [(msgspec.json.decode(record.value or b"null"), record) for record in world.records.get(PREDICTIONS, ())]
    ahead = {event["event_id"] for event, record in events if is_ahead(moment(event["occurred_at"]), record)}
    logged = {event["event_id"] for event, _ in events} - ahead
    dead_lettered = {
        msgspec.json.decode(row.raw)["event_id"]
        for row in world.dead_letters
        if row.topic == PREDICTIONS and row.reason == "in_the_future"
    }
    kept = Counter(world.predictions)
    violations = [
        *(f"prediction {name} was logged and is not archived" for name in logged if name not in kept),
        *(f"prediction {name} is archived and was never logged" for name in kept if name not in logged),
        *(f"prediction {name} is archived {number} times" for name, number in kept.items() if number > 1),
        *(f"prediction {name} is ahead of its record's time and not a dead letter" for name in ahead - dead_lettered),
    ]
    return verdict_of(violations, seen=world.with_minimums(predictions=len(logged | ahead)))
