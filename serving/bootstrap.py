"""Builds a replica from its settings: the only place of the service that constructs adapters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from backends.database.repositories.states import UserStateRows
from backends.service_process import ServiceProcess
from backends.telemetry.logs import get_logger
from modelkit.features import REDUCER_VERSION, UserState, decode_state
from modelkit.registry import installed
from schemas.topics import MODEL_DEPLOYMENTS
from schemas.vocabulary import Service
from serving.cache import ExpiringCache
from serving.consumer import DeploymentConsumer
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
    from backends.clock import Clock
    from backends.database.repositories.states import StoredState
    from serving.settings import ServingSettings

log = get_logger("serving")


async def serve(settings: ServingSettings) -> int:
    """Run a replica until a signal; return the exit status."""
    process = ServiceProcess(Service.SERVING, settings, name=settings.replica_id)
    registry = VersionRegistry()
    library = VersionLibrary(
        store_url=settings.resolved_store_url,
        keys_folder=settings.resolved_keys_folder,
        replica_folder=settings.replica_folder,
    )
    reporter = ReplicaReporter(
        registry,
        process.producer,
        process.clock,
        replica_id=process.name,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    followers = {
        model_type: ModelFollower(model_type, registry, library, reporter=reporter, clock=process.clock)
        for model_type in installed()
    }
    rows = UserStateRows(
        settings.database_url.get_secret_value(),
        connections=settings.state_connections,
        application_name=process.name,
    )
    prediction_log = PredictionLog(process.producer, limit=settings.prediction_log_records)
    service = PredictionService(
        registry, _states(settings, rows, process.clock), prediction_log, clock=process.clock, replica_id=process.name
    )
    http = _http_server(
        settings,
        ReplicaApplication(registry, service, replica_id=process.name, largest_body_bytes=settings.largest_body_bytes),
    )

    async def report() -> None:
        reporter.url = f"http://{settings.host}:{http.port}"
        log.info("replica_listens", url=reporter.url)
        await reporter.run()

    # Stopped in reverse: first no new requests, then their log, then the last report.
    for part in (rows, reporter, prediction_log, http):
        process.add_part(part)
    consumer = DeploymentConsumer(followers)
    process.read(MODEL_DEPLOYMENTS, consumer.handle, name="serving-deployments", dead_letters=consumer.skip_unreadable)
    process.add_work(prediction_log.run, report, *(follower.run for follower in followers.values()))
    await asyncio.to_thread(_resume, library, followers)
    return await process.run()


def _resume(library: VersionLibrary, followers: dict[str, ModelFollower]) -> None:
    """Take the states on the replica's own disk as goals; the topic brings newer ones."""
    for state in library.remembered():
        if state.model_type in followers:
            followers[state.model_type].desire(state)


def _http_server(settings: ServingSettings, application: ReplicaApplication) -> HttpServer:
    return HttpServer(
        application,
        host=settings.host,
        port=settings.port,
        drain_seconds=settings.drain_seconds,
        grace_seconds=settings.grace_seconds,
    )


def _states(settings: ServingSettings, rows: UserStateRows, clock: Clock) -> UserStateReader:
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
