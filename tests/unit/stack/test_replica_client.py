"""A host's client of the replicas, over real HTTP: in turn, around failures, with every request counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.ports import free_port
from stack.simulation import replica_client
from stack.simulation.replica_client import PredictionFailedError, PredictionTally, ReplicaClient
from tests.replica_doubles import ReplicaDouble, recommend, replicas, unready

WAIT_SECONDS = 20


@contextlib.asynccontextmanager
async def asking(urls: Sequence[str]) -> AsyncIterator[ReplicaClient]:
    """Give a client of these replicas."""
    client = ReplicaClient(urls)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client give up after two rounds without a pause."""
    monkeypatch.setattr(replica_client, "ROUNDS", 2)
    monkeypatch.setattr(replica_client, "PAUSE_SECONDS", 0.001)


async def test_requests_go_to_the_replicas_in_turn() -> None:
    """Requests go to the replicas in turn."""
    async with replicas(recommend, recommend) as (first, second), asking([first.url, second.url]) as client:
        answers = [await client.predict("goal", {"user_id": str(number)}) for number in range(6)]
    assert (len(first.asked), len(second.asked)) == (3, 3)
    assert {path for path, _ in first.asked} == {"/predict/goal"}
    assert sorted(body["user_id"] for _, body in first.asked + second.asked) == list("012345")
    assert all(answer["action_id"] == 1 for answer in answers)
    assert (client.tally.total, client.tally.failed, client.tally.retried, client.tally.learned) == (6, 0, 0, 6)
    assert len(client.tally.latencies_ms) == len(client.tally.moments) == 6


async def test_a_replica_that_is_away_costs_no_request() -> None:
    """A replica that is away costs retries, but no request."""
    nobody = f"http://127.0.0.1:{free_port()}"
    async with replicas(recommend) as (alive,), asking([nobody, alive.url]) as client:
        for _ in range(4):
            await client.predict("goal", {})
    assert (client.tally.total, client.tally.failed) == (4, 0)
    assert client.tally.retried == client.tally.errors["ConnectError"] >= 2
    assert len(client.tally.latencies_ms) == 4  # a refused connection has no latency


async def test_a_replica_that_refuses_is_skipped_and_its_error_is_kept() -> None:
    """A request that one replica refuses goes to another; the tally keeps the error."""
    async with replicas(unready, recommend) as (refusing, answering), asking([refusing.url, answering.url]) as client:
        for _ in range(4):
            await client.predict("goal", {})
    assert client.tally.failed == 0
    [error] = client.tally.errors
    assert error == '503 {"error":"no version is loaded"}'


async def test_a_replica_that_hangs_up_costs_no_request() -> None:
    """A request to a replica that dies while answering goes to another."""
    dying = ReplicaDouble()

    def die(path: str, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        del path, body
        for writer in dying._connections:
            writer.transport.abort()
        return 200, {}

    dying.answer = die
    async with dying.listening(), replicas(recommend) as (alive,), asking([dying.url, alive.url]) as client:
        for _ in range(4):
            await client.predict("goal", {})
    assert client.tally.failed == 0
    assert client.tally.retried >= 2


async def test_while_all_are_away_a_request_waits_for_the_first_that_is_back() -> None:
    """While all replicas are away, a request waits for the first one that returns."""
    double = ReplicaDouble()
    double.port = free_port()
    async with asking([double.url]) as client, asyncio.timeout(WAIT_SECONDS):
        waiting = asyncio.create_task(client.predict("goal", {}))
        while not client.tally.retried:
            await asyncio.wait([waiting], timeout=0.01)
        async with double.listening():
            assert (await waiting)["action_id"] == 1
    assert (client.tally.total, client.tally.failed) == (1, 0)


@pytest.mark.usefixtures("quick")
async def test_a_request_that_nobody_answers_counts_as_failed_once() -> None:
    """A request that no replica answers fails and is counted once."""
    async with replicas(unready, unready) as (first, second), asking([first.url, second.url]) as client:
        with pytest.raises(PredictionFailedError, match=f"none of {first.url}, {second.url} answered a goal"):
            await client.predict("goal", {})
    assert (client.tally.total, client.tally.failed, client.tally.retried) == (1, 1, 4)
    assert client.tally.latencies_ms == []


async def test_answers_of_baselines_and_learned_versions_are_counted_apart() -> None:
    """The tally counts answers of baselines and of learned versions separately."""
    kinds = iter(["baseline", "learned", "baseline"])
    async with replicas(lambda *_: (200, {"kind": next(kinds)})) as (replica,), asking([replica.url]) as client:
        for _ in range(3):
            await client.predict("goal", {})
    assert (client.tally.learned, client.tally.baseline) == (1, 2)


seconds = st.floats(0, 100, allow_subnormal=False)


@given(
    st.lists(st.tuples(seconds, st.floats(0.1, 50)), max_size=20),
    st.lists(seconds, min_size=1, max_size=5),
    st.floats(0.05, 10),
)
def test_a_percentile_around_swaps_takes_exactly_the_requests_close_to_one(
    requests: list[tuple[float, float]], swaps: list[float], within: float
) -> None:
    """A percentile around swaps covers exactly the requests close to a swap."""
    tally = PredictionTally(moments=[at for at, _ in requests], latencies_ms=[latency for _, latency in requests])
    close = [latency for at, latency in requests if min(abs(at - swap) for swap in swaps) <= within]
    found = tally.percentile_ms(99, around=swaps, within_seconds=within)
    assert found == (pytest.approx(np.percentile(close, 99)) if close else None)


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=20))
def test_without_swaps_a_percentile_is_of_all(latencies: list[float]) -> None:
    """Without swaps, a percentile covers all requests."""
    tally = PredictionTally(latencies_ms=latencies, moments=[0.0] * len(latencies))
    assert tally.percentile_ms(50) == pytest.approx(np.percentile(latencies, 50))
    assert PredictionTally().percentile_ms(50) is None
