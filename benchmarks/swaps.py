"""Measures the cost of swaps for callers: a replica at a steady rate, with a new version every half second and without."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from benchmarks.forest import forest_onnx, store_version
from benchmarks.load import Load, Outcome
from benchmarks.prediction import PATH, SEED, desired, infer_body, loaded, producing, publish, replica
from benchmarks.ratios import Comparison, Samples, compare
from benchmarks.services import HOST, BenchmarkError, Services, http_get

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.broker.kafka import BrokerProducer
    from benchmarks.plan import Plan, Say
    from schemas.messages.deployment import DeploymentState, VersionReference

SWAPS = "p99_during_swaps_vs_without"
PEER_NAME = "the same replica without swaps"
UNIT = "ms"
VERSIONS = 3  # the active one, the warm previous one, and the next, which is never in memory beforehand


class Facts(msgspec.Struct, frozen=True):
    """The number of swaps in a replica's readiness answer."""

    swaps: int


class Readiness(msgspec.Struct, frozen=True):
    """The relevant part of the readiness answer."""

    facts: Facts


def states(versions: Sequence[VersionReference]) -> Iterator[DeploymentState]:
    """Yield desired states without end, each with the next version as active and the last one as previous."""
    for sequence in itertools.count(1):
        previous = versions[(sequence - 2) % len(versions)] if sequence > 1 else None
        # Above every sequence of earlier measurements on the topic.
        yield desired(1_000 + sequence, versions[(sequence - 1) % len(versions)], previous=previous)


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparison; rounds with and without swaps alternate."""
    samples = Samples()
    versions = [
        store_version(services.folder, forest_onnx(SEED + number), version=f"2.0.{number}")
        for number in range(VERSIONS)
    ]
    desired_states = states(versions)
    async with producing(services) as producer, services.database() as database_url:
        await publish(producer, next(desired_states))
        async with replica(services, database_url=database_url) as port:
            load = Load(
                host=HOST,
                port=port,
                path=PATH,
                body=infer_body(),
                connections=plan.connections,
                seconds=plan.swap_seconds,
                rate=plan.swap_rate,
            )
            for number in range(1, plan.rounds + 1):
                without = await loaded(load)
                during, swapped = await _with_swaps(producer, desired_states, load=load, plan=plan)
                samples.add(ours=during.p99_ms, peer=without.p99_ms)
                say(
                    f"swaps, round {number} of {plan.rounds}: p99 {during.p99_ms:.2f} ms during {swapped} swaps,"
                    f" {without.p99_ms:.2f} ms without, at {during.rate:,.0f} requests/s"
                )
    return [compare(SWAPS, samples, peer_name=PEER_NAME, unit=UNIT)]


async def _with_swaps(
    producer: BrokerProducer, desired_states: Iterator[DeploymentState], *, load: Load, plan: Plan
) -> tuple[Outcome, int]:
    before = await _swaps(load.port)
    swapping = asyncio.create_task(_swap(producer, desired_states, every_seconds=plan.swap_every_seconds))
    try:
        outcome = await loaded(load)
    finally:
        swapping.cancel()
        await asyncio.gather(swapping, return_exceptions=True)
    swapped = await _swaps(load.port) - before
    least = int(plan.swap_seconds / plan.swap_every_seconds / 2)
    if swapped < least:
        raise BenchmarkError(f"the replica swapped {swapped} times; at least {least} were expected")
    return outcome, swapped


async def _swap(producer: BrokerProducer, desired_states: Iterator[DeploymentState], *, every_seconds: float) -> None:
    for state in desired_states:
        await publish(producer, state)
        await asyncio.sleep(every_seconds)


async def _swaps(port: int) -> int:
    """Return how often the replica has swapped; it may be unready because the other models are missing."""
    answer = await http_get(f"http://{HOST}:{port}/health/ready")
    return msgspec.json.decode(answer, type=Readiness).facts.swaps
