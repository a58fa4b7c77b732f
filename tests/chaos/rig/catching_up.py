"""Checks whether everything that was sent has arrived everywhere; asks the database and the brokers, not the processes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from backends.broker.positions import end_offsets, group_positions
from backends.database.engine import DATABASE_AWAY_ERRORS
from schemas.errors import RetryLaterError
from schemas.topics import BEHAVIORAL_EVENTS, MODEL_READY, PREDICTIONS, THRESHOLD_REACHED
from tests.chaos.rig.watch import Watch

GROUPS = {"fincoach-trainers": THRESHOLD_REACHED, "fincoach-deployer": MODEL_READY}
LEDGER = "SELECT topic, partition, next_offset FROM ledger"
OPEN = """
SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS outbox,
       (SELECT count(*) FROM epochs e WHERE NOT EXISTS (
          SELECT FROM training_jobs j WHERE j.model_type = e.model_type AND j.epoch = e.epoch)) AS epochs_without_job
"""
TRAININGS = "SELECT count(*) FROM training_jobs WHERE status IN ('queued', 'running')"
UNDECIDED = """
SELECT count(*) FROM model_training_events r WHERE r.verdict = 'candidate_wins'
  AND NOT EXISTS (SELECT FROM rollout_decisions d WHERE d.training_event_id = r.id)
"""
_AWAY = (RetryLaterError, KafkaError, *DATABASE_AWAY_ERRORS)
_PAUSE_SECONDS = 0.4


@dataclass(frozen=True)
class CaughtUp:
    """How many seconds catching up took; None, and what is behind, if it did not happen in time."""

    seconds: float | None
    behind: dict[str, int]


async def caught_up(
    brokers: str, watch: Watch, *, wide_partitions: int, since: float, within_seconds: float
) -> CaughtUp:
    """Wait until nothing is behind, for at most ``within_seconds``; the result counts from ``since`` (monotonic)."""
    began = time.monotonic()
    behind: dict[str, int] = {"never asked": 1}
    while time.monotonic() - began < within_seconds:
        try:
            behind = await _behind(brokers, watch, wide_partitions)
        except _AWAY as error:
            behind = {f"could not ask: {error!r}": 1}
        if not behind:
            return CaughtUp(round(time.monotonic() - since, 1), {})
        await asyncio.sleep(_PAUSE_SECONDS)
    return CaughtUp(None, behind)


async def _behind(brokers: str, watch: Watch, wide_partitions: int) -> dict[str, int]:
    """Return what is behind, and by how much: ledgers, groups, the outbox, epochs without a job."""
    topics = [BEHAVIORAL_EVENTS, PREDICTIONS, *GROUPS.values()]
    ends, ledger, groups, work = await asyncio.gather(
        end_offsets(brokers, topics, wide_partitions=wide_partitions),
        watch.rows(LEDGER),
        asyncio.gather(*(group_positions(brokers, group) for group in GROUPS)),
        watch.rows(OPEN),
    )
    read = {(row["topic"], row["partition"]): row["next_offset"] for row in ledger}
    for positions in groups:
        read |= positions
    lags = {f"{topic}/{partition}": end - read.get((topic, partition), 0) for (topic, partition), end in ends.items()}
    return {name: number for name, number in {**lags, **work[0]}.items() if number > 0}


async def trained(watch: Watch, *, within_seconds: float) -> CaughtUp:
    """Wait until no training is queued or running and every winner is decided. How long a fit takes is not part of the promise."""
    began = time.monotonic()
    behind: dict[str, int] = {"never asked": 1}
    while time.monotonic() - began < within_seconds:
        try:
            found = {"trainings": int(await watch.ask(TRAININGS)), "undecided": int(await watch.ask(UNDECIDED))}
            behind = {name: number for name, number in found.items() if number}
        except _AWAY as error:
            behind = {f"could not ask: {error!r}": 1}
        if not behind:
            return CaughtUp(round(time.monotonic() - began, 1), {})
        await asyncio.sleep(_PAUSE_SECONDS)
    return CaughtUp(None, behind)
