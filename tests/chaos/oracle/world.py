"""What a run left behind, as plain values: journals, topics and tables. Judging them needs neither broker nor database.

Nothing in this package imports the product: the names of topics, the rules of counting and the shapes of messages are
written a second time, in the oracle's own words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

EVENTS = "fincoach.behavioral-events"
PROGRESS = "fincoach.dataset-progress"
THRESHOLDS = "fincoach.threshold-reached"
READY = "fincoach.model-ready"
DEPLOYMENTS = "fincoach.model-deployments"
STATUS = "fincoach.replica-status"
PREDICTIONS = "fincoach.predictions"
RESULTS = "fincoach.control-results"
DEAD = "fincoach.dead-letters"
ALERTS = "fincoach.alerts"
TRAINING_PROGRESS = "fincoach.training-progress"
LEDGER_TOPICS = (EVENTS, PREDICTIONS)
# Every message on these topics comes from an outbox row; on the others processes also publish directly.
OUTBOX_TOPICS = (PROGRESS, THRESHOLDS, READY, DEPLOYMENTS, RESULTS)
READ_TOPICS = (*LEDGER_TOPICS, *OUTBOX_TOPICS, STATUS, DEAD, ALERTS, TRAINING_PROGRESS)
MODELS = ("recommendation", "segmentation", "spending", "goal")

# How much of a thing a run must contain before an invariant counts as exercised; ``run.json`` may change it.
DEFAULT_MINIMUMS = {
    "events": 1_000,
    "duplicates": 10,
    "dead letters": 10,
    "panes": 20,
    "epochs": 3,
    "trainings": 1,
    "users": 20,
    "announcements": 20,
    "deployment states": 4,
    "swaps": 1,
    "replicas": 1,
    "predictions": 20,
    "faults": 5,
    "refused zombies": 1,
    "models with epochs": 1,
}

FUTURE_SECONDS = 300.0  # an event or prediction further ahead of its record's time is refused
Json = dict[str, Any]
EventKey = tuple[str, dt.datetime]


class Send(NamedTuple):
    """One send of a producer, from its journal; ``acknowledged`` means that the broker certainly has it."""

    id: str
    kind: str
    valid: bool
    event: Json | None
    sha256: str
    acknowledged: bool


class Record(NamedTuple):
    """A record of a topic; ``at_ms`` is the broker's append time."""

    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str] = {}


class ArchivedEvent(NamedTuple):
    """A row of the archive."""

    event_id: str
    occurred_at: dt.datetime
    user_id: str
    event_type: str
    interaction_type: str
    consent: bool
    source: str
    payload: Json
    partition: int
    offset: int

    @property
    def key(self) -> EventKey:
        """What identifies the event."""
        return self.event_id, self.occurred_at


class Pane(NamedTuple):
    """A row of the table of panes."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    records: int
    archived: int
    duplicates: int
    dead_lettered: int
    not_consented: int
    counts: Mapping[str, Mapping[str, int]]
    closed_at: dt.datetime

    def counted(self, model: str) -> int:
        """Return what the pane adds to a model's data set."""
        return int(self.counts.get(model, {}).get("counted", 0))

    def __str__(self) -> str:
        """Return its topic, partition and offsets."""
        return f"pane {self.topic}/{self.partition} [{self.from_offset}, {self.to_offset})"


class DeadLetter(NamedTuple):
    """A row of the table of dead letters."""

    topic: str
    partition: int
    offset: int
    reason: str
    raw: bytes


class StoredState(NamedTuple):
    """A row of the table of user states."""

    user_id: str
    reducer_version: int
    partition: int
    state_offset: int
    state: bytes


class Epoch(NamedTuple):
    """A row of the table of epochs."""

    model: str
    epoch: int
    counted: int
    threshold: int
    ranges: Sequence[Mapping[str, Any]]


class Job(NamedTuple):
    """A row of the training queue."""

    model: str
    epoch: int | None
    status: str


class Training(NamedTuple):
    """A row of the trainings."""

    id: str
    model: str
    status: str
    verdict: str | None
    epochs: Sequence[int]


class OutboxRow(NamedTuple):
    """A row of the outbox."""

    id: int
    service: str
    topic: str
    key: bytes | None
    payload: bytes
    is_published: bool


class Deployment(NamedTuple):
    """The desired state of a model."""

    model: str
    sequence: int
    version: str


@dataclass(kw_only=True, eq=False)
class World:
    """A whole run. ``begins`` and ``ends`` are the offsets of each (topic, partition) that the broker reports."""

    run: Json = field(default_factory=dict)
    timeline: Sequence[Json] = ()
    sends: Sequence[Send] = ()
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    begins: Mapping[tuple[str, int], int] = field(default_factory=dict)
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)
    archive: Sequence[ArchivedEvent] = ()
    ledger: Mapping[tuple[str, int], int] = field(default_factory=dict)
    panes: Sequence[Pane] = ()
    dead_letters: Sequence[DeadLetter] = ()
    states: Sequence[StoredState] = ()
    epochs: Sequence[Epoch] = ()
    jobs: Sequence[Job] = ()
    trainings: Sequence[Training] = ()
    outbox: Sequence[OutboxRow] = ()
    deployments: Sequence[Deployment] = ()
    predictions: Sequence[str] = ()

    def minimum(self, name: str) -> int:
        """Return how many of ``name`` an invariant needs to count as exercised."""
        return int(self.run.get("minimums", {}).get(name, DEFAULT_MINIMUMS[name]))

    def with_minimums(self, **numbers: int) -> dict[str, tuple[int, int]]:
        """Return each number with its minimum, for a verdict; underscores stand for blanks."""
        named = {name.replace("_", " "): number for name, number in numbers.items()}
        return {name: (number, self.minimum(name)) for name, number in named.items()}


def is_ahead(occurred_at: dt.datetime, record: Record) -> bool:
    """Return whether something happened so far ahead of its record's time that it is refused."""
    return occurred_at.timestamp() - record.at_ms / 1000 > FUTURE_SECONDS


def moment(text: str) -> dt.datetime:
    """Return an ISO time in UTC."""
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def key_of(event: Json) -> EventKey:
    """Return what identifies ``event``: it is the same when the event is sent again."""
    return str(event["event_id"]).lower(), moment(event["occurred_at"])
