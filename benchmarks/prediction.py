"""Measures predictions for one user over HTTP: our replica against MLServer, with the same model file and request."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from backends.broker.kafka import BrokerProducer
from backends.clock import SystemClock
from benchmarks import mlserver
from benchmarks.environments import PeerMissingError
from benchmarks.forest import WIDTH, forest_onnx, goal_rows, store_version
from benchmarks.load import Load, Outcome, run_load
from benchmarks.ratios import Comparison, Samples, compare, skipped
from benchmarks.services import HOST, BenchmarkError, Services
from schemas.codec import encode
from schemas.messages.deployment import DeploymentState, VersionReference
from schemas.topics import MODEL_DEPLOYMENTS
from schemas.vocabulary import DeploymentPhase, Service

if TYPE_CHECKING:
    from benchmarks.plan import Plan, Say

RATE, P99 = "http_rate_vs_mlserver", "http_p99_vs_mlserver"
PEER_NAME = "MLServer 1.7.1, custom runtime, same ONNX file"
RATE_UNIT, P99_UNIT = "requests/s", "ms"
PATH = "/v2/models/goal/infer"
SEED = 11


def infer_body() -> bytes:
    """Return an inference request for one row."""
    row = [round(float(value), 4) for value in goal_rows(1, seed=1)[0]]
    tensor = {"name": "features", "shape": [1, WIDTH], "datatype": "FP32", "data": row}
    return msgspec.json.encode({"inputs": [tensor]})


def desired(sequence: int, active: VersionReference, *, previous: VersionReference | None = None) -> DeploymentState:
    """Return the state that makes replicas serve ``active`` for goals."""
    return DeploymentState(
        event_id=uuid.uuid4(),
        occurred_at=SystemClock().now(),
        model_type="goal",
        sequence=sequence,
        phase=DeploymentPhase.STABLE,
        active=active,
        previous=previous,
    )


async def publish(producer: BrokerProducer, state: DeploymentState) -> None:
    """Publish a desired state, as the deployer's relay does."""
    await producer.publish(MODEL_DEPLOYMENTS.name, str(state.model_type).encode(), encode(state))


@contextlib.asynccontextmanager
async def producing(services: Services) -> AsyncIterator[BrokerProducer]:
    """Give a started producer."""
    producer = BrokerProducer(services.brokers, client_id="bench")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def replica(services: Services, *, database_url: str) -> AsyncIterator[int]:
    """Run one replica and give its port once it serves the goal model."""
    ready = "/v2/models/goal/ready"
    async with services.process(Service.SERVING, database_url=database_url, ready_path=ready) as running:
        port = urlsplit(running.url).port
        if port is None:
            raise BenchmarkError(f"the replica has no port: {running.url}")
        yield port


async def loaded(load: Load) -> Outcome:
    """Run a load and require that every request succeeds.

    Raises:
        BenchmarkError: some requests failed.
    """
    outcome = await run_load(load)
    if outcome.failed:
        raise BenchmarkError(f"{outcome.failed} of {outcome.answered} requests to port {load.port} did not return 200")
    return outcome


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the HTTP comparisons in ``plan``; the two servers are loaded in turn."""
    units = {RATE: RATE_UNIT, P99: P99_UNIT}
    wanted = {name: unit for name, unit in units.items() if plan.wants(name)}
    try:
        installed = await mlserver.environment(say)
    except PeerMissingError as error:
        return [skipped(name, str(error), peer_name=PEER_NAME, unit=unit) for name, unit in wanted.items()]
    samples = {RATE: Samples(), P99: Samples()}
    onnx = forest_onnx(SEED)
    async with producing(services) as producer:
        await publish(producer, desired(1, store_version(services.folder, onnx, version="1.0.0")))
    async with (
        services.database() as database_url,
        replica(services, database_url=database_url) as our_port,
        mlserver.serving(installed, onnx, folder=services.folder / "mlserver") as peer_port,
    ):
        for number in range(1, plan.rounds + 1):
            ours, peer = [await loaded(_load(port, plan)) for port in (our_port, peer_port)]
            samples[RATE].add(ours=ours.rate, peer=peer.rate)
            samples[P99].add(ours=ours.p99_ms, peer=peer.p99_ms)
            say(
                f"HTTP, round {number} of {plan.rounds}: ours {ours.rate:,.0f} {RATE_UNIT}, p99 {ours.p99_ms:.2f} ms;"
                f" MLServer {peer.rate:,.0f} {RATE_UNIT}, p99 {peer.p99_ms:.2f} ms"
            )
    return [compare(name, samples[name], peer_name=PEER_NAME, unit=unit) for name, unit in wanted.items()]


def _load(port: int, plan: Plan) -> Load:
    return Load(
        host=HOST, port=port, path=PATH, body=infer_body(), connections=plan.connections, seconds=plan.http_seconds
    )
