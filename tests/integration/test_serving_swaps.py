"""Swaps under load over real HTTP: no request is lost, none is answered by a version that is closed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvloop

from backends.clock import SystemClock
from models.goal.features import GOAL_FEATURES
from serving.http_server import HttpServer
from tests.replicas import Replica

CONNECTIONS = 16
SWAPS = 40
GOAL = "goal"
USER = "6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11"
TENSOR = {
    "name": "features",
    "shape": [100, len(GOAL_FEATURES)],
    "datatype": "FP32",
    "data": [0.0] * (100 * len(GOAL_FEATURES)),
}


class ServedReplica:
    """A replica on a port, with an event loop in a thread of its own: callers and swaps really run beside each other."""

    def __init__(self, folder: Path) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="replica")
        self._thread.start()
        self.replica = self.do(self._made(folder))
        self.http = HttpServer(self.replica.application, host="127.0.0.1", port=0, drain_seconds=0.2, grace_seconds=5)
        self.do(self.http.start())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the work returns
        """Run ``work`` on the replica's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.http.port}"

    def end(self) -> None:
        """Stop serving, and the thread."""
        self.do(self.http.stop())
        self.do(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _made(self, folder: Path) -> Replica:
        replica = Replica(folder, SystemClock())
        await replica.serve_baselines()
        return replica


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedReplica]:
    """Give a replica on a port."""
    served = ServedReplica(tmp_path)
    yield served
    served.end()


class Callers:
    """Sixteen connections that never stop asking; what was answered, by status and version."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: Counter[tuple[int, str]] = Counter()
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="callers")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._ask(number) for number in range(CONNECTIONS)))

    async def _ask(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=10) as client:
            while not self._stopping.is_set():
                try:
                    await self._ask_once(client, number)
                except httpx.TransportError as error:
                    self.failures.append(repr(error))

    async def _ask_once(self, client: httpx.AsyncClient, number: int) -> None:
        """Send one request; a quarter of the callers ask for a hundred rows, whose lease spans a swap."""
        if number % 4 == 0:
            response = await client.post("/v2/models/goal/infer", json={"inputs": [TENSOR]})
        else:
            response = await client.post("/predict/goal", json={"user_id": USER})
        self.answers[response.status_code, response.json().get("model_version", "")] += 1


def test_swaps_under_load_lose_no_request(served: ServedReplica) -> None:
    """Swaps under load lose no request."""
    replica = served.replica
    versions = [replica.installation.goal(0.3 + number / 100, version=f"1.{number}.0") for number in range(SWAPS)]
    previous = replica.installation.baseline(GOAL)
    seen = []
    with Callers(served.url) as callers:
        for number, version in enumerate(versions, start=2):
            served.do(replica.serve_goal(number, version, previous))
            seen.append(replica.registry.models[GOAL].active)
            previous = version
            _wait_for_answers(callers, sum(callers.answers.values()) + CONNECTIONS // 2)
            _wait_for_version(callers, version.version)
    assert callers.failures == []
    assert {status for status, _ in callers.answers} == {200}
    assert [loaded.closed for loaded in seen] == [True] * (SWAPS - 2) + [False] * 2
    assert replica.registry.swaps == SWAPS


def _wait_for_version(callers: Callers, version: str) -> None:
    deadline = time.monotonic() + 30
    while not callers.answers[200, version]:
        assert time.monotonic() < deadline, f"no caller was answered by {version} for 30 s"
        time.sleep(0.002)


def _wait_for_answers(callers: Callers, wanted: int) -> None:
    deadline = time.monotonic() + 30
    while sum(callers.answers.values()) < wanted:
        assert time.monotonic() < deadline, "the callers got no answers for 30 s"
        time.sleep(0.002)


def test_a_drained_version_closes_only_when_its_last_request_is_answered(served: ServedReplica) -> None:
    """A drained version closes when its last request is answered, and not before."""
    replica = served.replica
    first, second, third = (
        replica.installation.goal(rate, version=f"1.{number}.0") for number, rate in enumerate((0.4, 0.5, 0.6))
    )
    served.do(replica.serve_goal(2, first))
    lease = replica.registry.lease(GOAL)
    served.do(replica.serve_goal(3, second))
    served.do(replica.serve_goal(4, third))
    assert not lease.closed
    lease.release()
    assert lease.closed


def test_a_stop_answers_what_was_accepted_and_sends_callers_away(served: ServedReplica) -> None:
    """A stopping replica answers what it accepted and sends callers away."""
    with Callers(served.url) as callers:
        _wait_for_answers(callers, 200)
        served.do(served.http.stop())
        with httpx.Client() as client, pytest.raises(httpx.ConnectError):
            client.get(f"{served.url}/health/live")
    assert {status for status, _ in callers.answers} == {200}
    # New connections are refused once the door is shut, or reset while they wait at it; no answer may break off.
    assert {failure.split("(", 1)[0] for failure in callers.failures} <= {"ConnectError", "ReadError"}
