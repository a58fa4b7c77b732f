"""Requests predictions over HTTP like any host: from the replicas in turn, from the next when one fails. Counts the outcomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from schemas.errors import FinCoachError

TIMEOUT_SECONDS = 5.0
ROUNDS = 20  # a replica that was killed is back within seconds
PAUSE_SECONDS = 0.25


class PredictionFailedError(FinCoachError):
    """No replica answered a prediction request."""


@dataclass
class PredictionTally:
    """Counts of requests and answers; latencies in milliseconds, moments in seconds of the monotonic clock."""

    total: int = 0
    failed: int = 0
    learned: int = 0
    baseline: int = 0
    retried: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def percentile_ms(
        self, percentile: float, *, around: Sequence[float] = (), within_seconds: float = 0.5
    ) -> float | None:
        """Return a percentile of the latencies: of all requests, or of those that ended close to a moment of ``around``."""
        latencies = np.asarray(self.latencies_ms)
        if around:
            latencies = latencies[self._close_to(around, within_seconds)]
        return float(np.percentile(latencies, percentile)) if latencies.size else None

    def _close_to(self, around: Sequence[float], within_seconds: float) -> npt.NDArray[np.bool_]:
        moments, marks = np.asarray(self.moments), np.sort(np.asarray(around))
        after = np.clip(np.searchsorted(marks, moments), 0, marks.size - 1)
        before = np.clip(after - 1, 0, marks.size - 1)
        nearest = np.minimum(np.abs(moments - marks[before]), np.abs(moments - marks[after]))
        close: npt.NDArray[np.bool_] = nearest <= within_seconds
        return close


class ReplicaClient:
    """A host's client of the replicas. A failed attempt goes to the next replica; a request fails when all attempts did."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.tally = PredictionTally()
        self._urls = tuple(urls)
        self._turn = 0
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=httpx.Limits(max_connections=32))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def predict(self, model_type: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return a replica's answer.

        Raises:
            PredictionFailedError: no replica gave one.
        """
        self.tally.total += 1
        for attempt in range(ROUNDS * len(self._urls)):
            answer = await self._attempt(model_type, body)
            if answer is not None:
                self._count(answer)
                return answer
            self.tally.retried += 1
            if (attempt + 1) % len(self._urls) == 0:
                await asyncio.sleep(PAUSE_SECONDS)
        self.tally.failed += 1
        message = f"none of {', '.join(self._urls)} answered a {model_type} prediction"
        raise PredictionFailedError(message)

    async def _attempt(self, model_type: str, body: dict[str, Any]) -> dict[str, Any] | None:
        self._turn += 1
        url = self._urls[self._turn % len(self._urls)]
        began = time.perf_counter()
        try:
            response = await self._client.post(f"{url}/predict/{model_type}", json=body)
        except httpx.HTTPError as error:
            self._note(type(error).__name__)
            return None
        if response.status_code != httpx.codes.OK:
            self._note(f"{response.status_code} {response.text[:100]}")
            return None
        self.tally.latencies_ms.append((time.perf_counter() - began) * 1000.0)
        self.tally.moments.append(time.monotonic())
        answer: dict[str, Any] = response.json()
        return answer

    def _note(self, error: str) -> None:
        self.tally.errors[error] = self.tally.errors.get(error, 0) + 1

    def _count(self, answer: dict[str, Any]) -> None:
        if answer["kind"] == "baseline":
            self.tally.baseline += 1
        else:
            self.tally.learned += 1
