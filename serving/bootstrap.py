"""The only place of this room that constructs adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from backends.broker.kafka import BrokerConsumer, BrokerProducer
from backends.clock import SystemClock
from backends.database.repositories.states import UserStateRows
from backends.process import Startable, run_process
from backends.telemetry.logs import configure_logs, get_logger
from modelkit.features import REDUCER_VERSION, UserState, decode_state
from modelkit.registry import installed
from schemas.topics import MODEL_DEPLOYMENTS
from schemas.vocabulary import ModelType
from serving.cache import ExpiringCache
from serving.consumer import DeploymentConsumer, keep_connected
from serving.endpoints import ReplicaApplication
from serving.follower import ModelFollower
from serving.http_server import HttpServer
from serving.prediction_log import PredictionLog
from serving.registry import VersionRegistry
from serving.reports import ReplicaReporter
from serving.service import PredictionService
from serving.user_states import FoundState, UserStateReader
from serving.versions import VersionLibrary

if TYPE_CHECKING:
    from backends.database.repositories.states import StoredState
    from serving.settings import ServingSettings

log = get_logger("serving")


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A replica's parts, in the order in which they start, and what runs beside them."""

    registry: VersionRegistry
    followers: dict[ModelType, ModelFollower]
    library: VersionLibrary
    reporter: ReplicaReporter
    http: HttpServer
    parts: Sequence[Startable]
    tasks: Sequence[Coroutine[Any, Any, None]]

    def resume(self) -> None:
        """Desire again what the replica's own disk remembers; the topic brings what is newer."""
        for state in self.library.remembered():
            self.followers[state.model_type].desire(state)


def build(settings: ServingSettings) -> Replica:
    """Return a replica; nothing connects or listens yet."""
    clock, name = SystemClock(), settings.replica_id
    registry = VersionRegistry()
    producer = BrokerProducer(settings.brokers, client_id=name)
    library = VersionLibrary(
        store_url=settings.resolved_store_url,
        keys_folder=settings.resolved_keys_folder,
        replica_folder=settings.replica_folder,
    )
    reporter = ReplicaReporter(registry, producer, clock, replica_id=name, heartbeat_seconds=settings.heartbeat_seconds)
    followers = {
        model_type: ModelFollower(model_type, registry, library, reporter=reporter, clock=clock)
        for model_type in installed()
    }
    rows = UserStateRows(
        settings.database_url.get_secret_value(), connections=settings.state_connections, application_name=name
    )
    prediction_log = PredictionLog(producer, limit=settings.prediction_log_records)
    service = PredictionService(registry, _states(settings, rows, clock), prediction_log, clock=clock, replica_id=name)
    application = ReplicaApplication(registry, service, replica_id=name, largest_body_bytes=settings.largest_body_bytes)
    http = HttpServer(
        application,
        host=settings.host,
        port=settings.port,
        drain_seconds=settings.drain_seconds,
        grace_seconds=settings.grace_seconds,
    )
    consumer = DeploymentConsumer(
        lambda: BrokerConsumer(settings.brokers, [MODEL_DEPLOYMENTS], client_id=name), followers
    )
    return Replica(
        registry=registry, followers=followers, library=library, reporter=reporter, http=http,
        # Stopped in reverse: first no new requests, then their log, then the farewell.
        parts=(_Producer(producer), rows, reporter, prediction_log, http),
        tasks=(keep_connected(producer), consumer.run(), prediction_log.run(), *(item.run() for item in followers.values())),
    )  # fmt: skip


async def serve(settings: ServingSettings) -> int:
    """Run a replica until a signal; return the exit status."""
    configure_logs(process=settings.replica_id, level=settings.log_level)
    replica = build(settings)
    await asyncio.to_thread(replica.resume)
    return await run_process(
        settings.replica_id, parts=replica.parts, tasks=(*replica.tasks, _report(settings, replica))
    )


async def _report(settings: ServingSettings, replica: Replica) -> None:
    replica.reporter.url = f"http://{settings.host}:{replica.http.port}"
    log.info("replica_listens", url=replica.reporter.url)
    await replica.reporter.run()


class _Producer:
    """The producer's end; its beginning is a task, because the broker may be away."""

    def __init__(self, producer: BrokerProducer) -> None:
        self._producer = producer

    async def start(self) -> None:
        """Leave connecting to the task."""

    async def stop(self) -> None:
        """Flush and disconnect."""
        await self._producer.stop()


def _states(settings: ServingSettings, rows: UserStateRows, clock: SystemClock) -> UserStateReader:
    cache: ExpiringCache[UUID, FoundState] = ExpiringCache(
        size=settings.state_cache_users, ttl_seconds=settings.state_ttl_seconds
    )
    return UserStateReader(rows, decoded, clock, cache=cache, timeout_seconds=settings.state_timeout_seconds)


def decoded(row: StoredState) -> UserState | None:
    """Return the state in ``row``, or None when another version of the reducer made it."""
    if row.reducer_version != REDUCER_VERSION:
        return None
    try:
        return decode_state(row.state)
    except msgspec.DecodeError as error:
        log.warning("user_state_unreadable", error=str(error))
        return None
