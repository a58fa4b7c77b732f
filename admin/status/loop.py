"""The loop as a chain of links, and the rule that names the first broken one. Pure: facts in, verdicts out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from schemas.rows import ExpiredLease, FailedTraining, WaitingAnnouncements

LAG_IS_OLD_SECONDS = 60
READY = "ready"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One reader of one partition at two looks: its two positions, the partition's end, and ``since`` when it has not moved, if known."""

    link: str
    topic: str
    partition: int
    earlier: int
    position: int
    end: int
    since: dt.datetime | None = None

    @property
    def stalled(self) -> bool:
        """Return whether records wait while the position does not move."""
        return self.end > self.position and self.position == self.earlier


@dataclass(frozen=True, kw_only=True)
class ProcessFacts:
    """One process: its supervisor's report and its own. ``since`` is when its phase began, if known."""

    name: str
    service: str
    live: bool
    ready: bool
    phase: str = "unknown"
    since: dt.datetime | None = None
    checks: dict[str, bool] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    log: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReplicaBehind:
    """A replica that does not serve the desired version of a model, and since when that version is desired."""

    replica_id: str
    model_type: str
    serves: str
    desired: str
    since: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True)
class LoopFacts:
    """All facts for the verdict. ``database_error`` and ``broker_error`` are None while database and broker answer."""

    now: dt.datetime
    database_error: str | None
    broker_error: str | None
    processes: tuple[ProcessFacts, ...]
    readers: tuple[Reader, ...] = ()
    outbox: tuple[WaitingAnnouncements, ...] = ()
    expired_leases: tuple[ExpiredLease, ...] = ()
    failed_trainings: tuple[FailedTraining, ...] = ()
    replicas_behind: tuple[ReplicaBehind, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Link:
    """One link of the loop: whether it holds; if not, since when (if known), what that means and what to do next."""

    name: str
    holds: bool
    detail: str
    since: dt.datetime | None = None
    meaning: str = ""
    next_command: str = ""


def links(facts: LoopFacts) -> tuple[Link, ...]:
    """Return every link in the order in which data flows through them."""
    servers = (_server("database", facts.database_error), _server("broker", facts.broker_error))
    streams, trainers, deployer, serving = (
        _service(service, facts) for service in ("streams", "trainers", "deployer", "serving")
    )
    return (
        *servers,
        streams,
        _counting(facts),
        _outbox(facts),
        trainers,
        _training(facts),
        deployer,
        serving,
        _replicas(facts),
    )


def first_broken(chain: tuple[Link, ...]) -> Link | None:
    """Return the first link that does not hold, or None if the loop is whole."""
    return next((link for link in chain if not link.holds), None)


def _server(name: str, error: str | None) -> Link:
    if error is None:
        return Link(name=name, holds=True, detail="answers")
    meaning = {
        "database": "nothing is archived, counted, queued or deployed; events wait in Kafka, replicas go on serving",
        "broker": "events wait in the producers, nothing is announced; replicas go on serving what they serve",
    }[name]
    return Link(name=name, holds=False, detail=error, meaning=meaning, next_command="fincoach-learning doctor")


_SERVICE_MEANING = {
    "streams": "events wait in Kafka and are counted when it is back; no threshold can be reached",
    "trainers": "reached thresholds wait in the queue; models grow stale, nothing is lost",
    "deployer": "trained models wait; rollbacks are carried out when it is back",
    "serving": "callers have fewer replicas, or none, to ask for predictions",
}


def _service(service: str, facts: LoopFacts) -> Link:
    processes = [process for process in facts.processes if process.service == service]
    broken = next((process for process in processes if not process.ready), None)
    if broken is None:
        detail = f"{len(processes)} of {len(processes)} ready" if processes else "not part of this installation"
        return Link(
            name=service,
            holds=bool(processes),
            detail=detail,
            meaning="" if processes else _SERVICE_MEANING[service],
            next_command="" if processes else "fincoach-learning up",
        )
    failing = ", ".join(name for name, holds in broken.checks.items() if not holds)
    detail = f"{broken.name} is {broken.phase}" + (
        f", failing: {failing}" if failing else "" if broken.live else ", does not answer"
    )
    command = f"tail -n 50 {broken.log}" if broken.log else "fincoach-learning up"
    return Link(
        name=service,
        holds=False,
        detail=detail,
        since=broken.since if broken.phase != READY else None,
        meaning=_SERVICE_MEANING[service],
        next_command=command,
    )


def _counting(facts: LoopFacts) -> Link:
    stalled = [reader for reader in facts.readers if reader.stalled]
    behind = sum(max(reader.end - reader.position, 0) for reader in facts.readers)
    if not stalled:
        return Link(
            name="reading",
            holds=True,
            detail=f"{behind} records behind, moving" if behind else "all topics read to their ends",
        )
    worst = max(stalled, key=lambda reader: reader.end - reader.position)
    return Link(
        name="reading",
        holds=False,
        since=worst.since,
        detail=f"{worst.link} stands at {worst.topic}/{worst.partition} offset {worst.position}, {worst.end - worst.position} records behind and not moving",
        meaning="a record cannot be handled, or the reader hangs; what follows it on this partition waits",
        next_command="fincoach-learning status --json   # then look into the log of that process",
    )


def _outbox(facts: LoopFacts) -> Link:
    late = [row for row in facts.outbox if (facts.now - row.oldest).total_seconds() > LAG_IS_OLD_SECONDS]
    if not late:
        return Link(name="announcing", holds=True, detail=f"{sum(row.rows for row in facts.outbox)} outbox rows wait")
    oldest = min(late, key=lambda row: row.oldest)
    return Link(
        name="announcing",
        holds=False,
        detail=f"{oldest.rows} outbox rows of {oldest.service} are not published",
        since=oldest.oldest,
        meaning="what this service decided is true in the database but nobody is told",
        next_command="fincoach-learning status   # is that service ready, does the broker answer?",
    )


def _training(facts: LoopFacts) -> Link:
    if facts.expired_leases:
        row = facts.expired_leases[0]
        return Link(
            name="training",
            holds=False,
            detail=f"the lease of a {row.model_type} training has expired",
            since=row.lease_until,
            meaning="its trainer died or is frozen; another one takes the job over",
            next_command="fincoach-learning trainings --queue",
        )
    failed = (
        f"{len(facts.failed_trainings)} failed within the last hour"
        if facts.failed_trainings
        else "no failure within the last hour"
    )
    return Link(name="training", holds=True, detail=failed)


def _replicas(facts: LoopFacts) -> Link:
    if not facts.replicas_behind:
        return Link(name="swapping", holds=True, detail="every replica serves the desired versions")
    row = facts.replicas_behind[0]
    return Link(
        name="swapping",
        holds=False,
        detail=f"{row.replica_id} serves {row.model_type} {row.serves}, desired is {row.desired}",
        since=row.since,
        meaning="that replica could not load the new version, or has not heard of it; it goes on serving the old one",
        next_command="fincoach-learning versions",
    )
