"""What our reader of partitions costs without a database: decoded and counted events a second, beside a bare aiokafka consumer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from backends.clock import SystemClock
from benchmarks.ratios import Comparison, Samples, compare
from benchmarks.services import Services, reported_rate
from benchmarks.topic import preload
from benchmarks.workload import behavioral_events
from schemas.topics import BEHAVIORAL_EVENTS

if TYPE_CHECKING:
    from benchmarks.plan import Plan, Say

TRANSPORT = "transport_vs_bare_aiokafka"
PEER_NAME = "aiokafka's getmany() with the same decoding and counting"
UNIT = "events/s"


async def measure(services: Services, plan: Plan, say: Say) -> list[Comparison]:
    """Return the comparison; the two sides alternate on one topic."""
    samples = Samples()
    async with services.beside() as own:
        say(f"transport: putting {plan.transport_events:,} events on a topic")
        loaded = await preload(own, behavioral_events(plan.transport_events, ends_at=SystemClock().now()))
        for number in range(1, plan.rounds + 1):
            ours, peer = [
                await _rate(own, side, records=loaded.records, number=number) for side in ("ours", "aiokafka")
            ]
            samples.add(ours=ours, peer=peer)
            say(f"transport, round {number} of {plan.rounds}: ours {ours:,.0f}, aiokafka {peer:,.0f} {UNIT}")
    return [compare(TRANSPORT, samples, peer_name=PEER_NAME, unit=UNIT)]


async def _rate(services: Services, side: str, *, records: int, number: int) -> float:
    name = f"count-{side}-{number}"
    arguments = (side, services.brokers, BEHAVIORAL_EVENTS.name, str(records), name)
    return await reported_rate(
        sys.executable, "-m", "benchmarks.counting", *arguments, log=services.folder / f"{name}.log"
    )
