"""A steady load of predictions on all replicas, for the whole run of the demo."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from stack.simulation.replica_client import PredictionFailedError, ReplicaClient

Customers = Callable[[], tuple[list[UUID], dt.datetime | None]]

ASKED = ("segmentation", "spending", "goal")  # simulated customers ask for recommendations


class PredictionLoad:
    """Requests ``requests_per_second`` predictions, evenly over the models, without waiting for earlier answers.

    An open loop: a slow answer does not delay the next request, so waiting shows in the latencies.
    """

    def __init__(
        self, client: ReplicaClient, customers: Customers, *, requests_per_second: float, seed: int = 1
    ) -> None:
        self._client = client
        self._customers = customers
        self._pause_seconds = 1.0 / requests_per_second
        self._generator = np.random.default_rng(seed)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send requests until cancelled; then wait for the open ones."""
        turn = 0
        try:
            while True:
                task = asyncio.create_task(self._ask(ASKED[turn % len(ASKED)]))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                turn += 1
                await asyncio.sleep(self._pause_seconds)
        finally:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _ask(self, model: str) -> None:
        try:
            await self._client.predict(model, self._body(model))
        except PredictionFailedError:
            return  # the client counts it, and the demo fails on it

    def _body(self, model: str) -> dict[str, Any]:
        users, now = self._customers()
        user_id = users[int(self._generator.integers(len(users)))] if users else uuid4()
        body: dict[str, Any] = {"user_id": str(user_id)}
        if now is not None:
            body["as_of"] = now.isoformat()
        if model == "goal":
            due = (now or dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) + dt.timedelta(days=30)
            body["goal"] = {"goal_kind": "budget", "target_minor": 5_000, "currency": "USD", "due_at": due.isoformat()}
        return body
