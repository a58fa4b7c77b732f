"""The steady load on the replicas: even, open, and complete at the end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from stack.simulation import replica_client
from stack.simulation.load import Customers, PredictionLoad
from stack.simulation.replica_client import ReplicaClient
from tests.replica_doubles import ReplicaDouble, recommend, replicas, unready

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
KNOWN = [UUID(int=number) for number in range(1, 6)]
WAIT_SECONDS = 20
MODELS = {"/predict/segmentation", "/predict/spending", "/predict/goal"}


@contextlib.asynccontextmanager
async def loading(replica: ReplicaDouble, customers: Customers) -> AsyncIterator[ReplicaClient]:
    """Run a load of 500 requests a second during the block."""
    client = ReplicaClient([replica.url])
    load = asyncio.create_task(PredictionLoad(client, customers, requests_per_second=500).run())
    try:
        yield client
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        await client.close()


async def until(holds: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - the server's list has no event
            await asyncio.sleep(0.01)


async def test_all_other_models_are_asked_evenly_for_known_customers_at_the_hosts_time() -> None:
    """Every model but recommendation gets an equal share of requests, about known customers at the host's time."""
    async with replicas(recommend) as (replica,), loading(replica, lambda: (KNOWN, NOW)):
        await until(lambda: len(replica.asked) >= 60)
    asked = Counter(path for path, _ in replica.asked[:60])
    assert asked.keys() == MODELS
    assert max(asked.values()) - min(asked.values()) <= 3  # requests overtake each other
    bodies = [body for _, body in replica.asked]
    assert {body["user_id"] for body in bodies} == {str(user) for user in KNOWN}
    assert {body["as_of"] for body in bodies} == {NOW.isoformat()}


async def test_a_goal_is_asked_about_with_a_goal() -> None:
    """Requests to the goal model contain a goal; others do not."""
    async with replicas(recommend) as (replica,), loading(replica, lambda: (KNOWN, NOW)):
        await until(lambda: any(path == "/predict/goal" for path, _ in replica.asked))
    goals = [body["goal"] for path, body in replica.asked if path == "/predict/goal"]
    assert goals[0]["due_at"] == (NOW + dt.timedelta(days=30)).isoformat()
    assert not any("goal" in body for path, body in replica.asked if path != "/predict/goal")


async def test_before_anybody_is_known_strangers_are_asked_about() -> None:
    """Before the first customer, requests are about unknown users without a time."""
    async with replicas(recommend) as (replica,), loading(replica, lambda: ([], None)):
        await until(lambda: len(replica.asked) >= 9)
    assert len({body["user_id"] for _, body in replica.asked}) == len(replica.asked)
    assert not any("as_of" in body for _, body in replica.asked)


async def test_requests_under_way_are_waited_for_in_the_end() -> None:
    """A cancelled load waits for its open requests, so the totals agree."""
    async with replicas(recommend) as (replica,):
        async with loading(replica, lambda: (KNOWN, NOW)) as client:
            await until(lambda: len(replica.asked) >= 10)
        assert client.tally.total == len(replica.asked) == client.tally.learned


async def test_a_failed_request_does_not_end_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load goes on after failed requests."""
    monkeypatch.setattr(replica_client, "ROUNDS", 1)
    monkeypatch.setattr(replica_client, "PAUSE_SECONDS", 0.0)
    async with replicas(unready) as (replica,), loading(replica, lambda: (KNOWN, NOW)) as client:
        await until(lambda: client.tally.failed >= 3)
        replica.answer = recommend
        await until(lambda: client.tally.learned >= 3)
