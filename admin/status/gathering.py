"""Gathers the facts of the loop from database, broker and processes; :mod:`admin.status.loop` judges them."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec

from admin.status.loop import LoopFacts, ProcessFacts, Reader, ReplicaBehind
from backends.broker.positions import Position, end_offsets, group_positions
from backends.database.engine import DATABASE_AWAY_ERRORS
from backends.database.repositories.queries import QueryRepository
from schemas.errors import DatabaseAwayError, RetryLaterError
from schemas.topics import BEHAVIORAL_EVENTS, MODEL_READY, PREDICTIONS, THRESHOLD_REACHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from admin.installation import Endpoint, Installation
    from backends.clock import Clock
    from backends.database.unit_of_work import Database
    from schemas.rows import DesiredDeployment, KnownReplica, LoopFigures

BETWEEN_LOOKS_SECONDS = 1.0
GROUPS = {"trainers": ("fincoach-trainers", THRESHOLD_REACHED), "deployer": ("fincoach-deployer", MODEL_READY)}

_AWAY: tuple[type[Exception], ...] = (RetryLaterError, *DATABASE_AWAY_ERRORS)


class _SupervisedProcess(msgspec.Struct, frozen=True):
    name: str
    phase: str
    since: dt.datetime
    log: str


class _SupervisorState(msgspec.Struct, frozen=True):
    processes: tuple[_SupervisedProcess, ...] = ()


class StatusService:
    """Looks at one installation."""

    def __init__(self, installation: Installation, database: Database, clock: Clock, *, folder: Path) -> None:
        self._installation = installation
        self._database = database
        self._clock = clock
        self._folder = folder
        self._moved_at: dict[Position, dt.datetime] = {}

    async def facts(self) -> LoopFacts:
        """Return the current facts; takes about a second, because positions are read twice."""
        earlier = await self._positions()
        # Before the second look: records that arrive between the looks are not late.
        broker_error, ends = await self._ends()
        processes, _ = await asyncio.gather(self._processes(), asyncio.sleep(BETWEEN_LOOKS_SECONDS))
        later = await self._positions()
        database_error, figures, behind = await self._database_facts()
        return LoopFacts(
            now=figures.now if figures else self._clock.now(),
            database_error=database_error,
            broker_error=broker_error,
            processes=tuple(processes),
            readers=tuple(self._readers(earlier, later, ends)),
            outbox=figures.outbox if figures else (),
            expired_leases=figures.expired_leases if figures else (),
            failed_trainings=figures.failed_trainings if figures else (),
            replicas_behind=behind,
        )

    async def _database_facts(self) -> tuple[str | None, LoopFigures | None, tuple[ReplicaBehind, ...]]:
        try:
            async with self._database.reading() as connection:
                queries = QueryRepository(connection)
                figures = await queries.loop_figures()
                return None, figures, _behind(await queries.deployments(), await queries.replicas())
        except _AWAY as error:
            return first_line(error), None, ()

    async def _positions(self) -> dict[tuple[str, Position], int]:
        """Return (link, (topic, partition)) → position: the ledger for streams, committed offsets for the others."""
        found: dict[tuple[str, Position], int] = {}
        try:
            async with self._database.reading() as connection:
                for row in await QueryRepository(connection).ledger():
                    place = (row.topic, row.partition)
                    found["streams", place] = row.next_offset
                    self._moved_at[place] = row.updated_at
            for link, (group, topic) in GROUPS.items():
                unread = {
                    (topic.name, number): 0 for number in range(topic.partitions(self._installation.wide_partitions))
                }
                positions = unread | await group_positions(self._installation.brokers, group)
                found |= {(link, place): offset for place, offset in positions.items()}
        except _AWAY:
            return found
        return found

    async def _ends(self) -> tuple[str | None, dict[Position, int]]:
        topics = (BEHAVIORAL_EVENTS, PREDICTIONS, THRESHOLD_REACHED, MODEL_READY)
        try:
            return None, await end_offsets(
                self._installation.brokers, topics, wide_partitions=self._installation.wide_partitions
            )
        except RetryLaterError as error:
            return str(error), {}

    async def _processes(self) -> list[ProcessFacts]:
        supervised = {process.name: process for process in self._supervised()}
        async with httpx.AsyncClient(timeout=2.0) as client:
            asked = (
                self._ask(client, endpoint, supervised.get(endpoint.name)) for endpoint in self._installation.processes
            )
            return list(await asyncio.gather(*asked))

    async def _ask(
        self, client: httpx.AsyncClient, endpoint: Endpoint, supervised: _SupervisedProcess | None
    ) -> ProcessFacts:
        live, ready, body = True, False, {}
        try:
            response = await client.get(f"{endpoint.url}/health/ready")
            ready, body = response.status_code == httpx.codes.OK, response.json()
        except (httpx.HTTPError, ValueError):
            live = False
        return ProcessFacts(
            name=endpoint.name,
            service=endpoint.service,
            live=live,
            ready=ready,
            phase=supervised.phase if supervised else ("ready" if ready else "away"),
            since=supervised.since if supervised else None,
            checks=body.get("checks", {}),
            facts=body.get("facts", {}),
            log=supervised.log if supervised else None,
        )

    def _readers(
        self,
        earlier: dict[tuple[str, Position], int],
        later: dict[tuple[str, Position], int],
        ends: dict[Position, int],
    ) -> list[Reader]:
        return [
            Reader(
                link=link,
                topic=place[0],
                partition=place[1],
                earlier=earlier.get((link, place), -1),
                position=position,
                end=ends[place],
                since=self._moved_at.get(place),
            )
            for (link, place), position in later.items()
            if place in ends
        ]

    def _supervised(self) -> tuple[_SupervisedProcess, ...]:
        try:
            return msgspec.json.decode((self._folder / "state.json").read_bytes(), type=_SupervisorState).processes
        except (OSError, msgspec.DecodeError):
            return ()


def _behind(deployments: Sequence[DesiredDeployment], replicas: Sequence[KnownReplica]) -> tuple[ReplicaBehind, ...]:
    wanted = {row.model_type: row for row in deployments}
    return tuple(
        ReplicaBehind(
            replica_id=replica.replica_id,
            model_type=model_type,
            serves=served.version,
            desired=wanted[model_type].version,
            since=wanted[model_type].updated_at,
        )
        for replica in replicas
        for model_type, served in replica.models.items()
        if model_type in wanted and served.sequence < wanted[model_type].sequence
    )


def first_line(error: BaseException) -> str:
    """Return the first line of the database's own error."""
    said = error.__cause__ or error if isinstance(error, DatabaseAwayError) else error
    return str(said).splitlines()[0] if str(said) else type(said).__name__
