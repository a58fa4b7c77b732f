"""Steady load that must not fail during faults: predictions from every replica, and commands that swap versions."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np

from admin.gateway import CommandGateway, NoAnswerError
from backends.clock import Clock, SystemClock
from backends.database.engine import DATABASE_AWAY_ERRORS
from schemas.errors import CommandRejectedError, FinCoachError
from schemas.messages.control import Command, DeployModel, RollBackModel
from schemas.vocabulary import ModelType
from tests.chaos.producers.population import NAMESPACE
from tests.chaos.rig.watch import Watch
from tests.four_models import FOUR_MODELS

LONGEST_ANSWER_SECONDS = 10.0
Excuse = Callable[[str, float], bool]
"""Whether a replica was killed, frozen or not yet running at some time since the given one (monotonic seconds)."""


class PredictionLoad:
    """Asks each replica in turn. A failure counts unless the replica itself was killed or frozen meanwhile."""

    def __init__(self, urls: dict[str, str], excuse: Excuse, *, per_second: float, seed: int) -> None:
        self.answered = 0
        self.excused = 0
        self.failures: list[dict[str, Any]] = []
        self.slowest_seconds = 0.0
        self._urls = urls
        self._excuse = excuse
        self._pause_seconds = 1.0 / per_second
        self._generator = np.random.default_rng([seed, 3])

    async def run(self) -> None:
        """Ask until cancelled, then wait for the requests in flight."""
        names = list(self._urls)
        running: set[asyncio.Task[None]] = set()
        turn = 0
        async with httpx.AsyncClient(timeout=LONGEST_ANSWER_SECONDS) as client:
            try:
                while True:
                    model = list(FOUR_MODELS)[turn // len(names) % len(FOUR_MODELS)]
                    task = asyncio.create_task(self._ask(client, names[turn % len(names)], model))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    turn += 1
                    await asyncio.sleep(self._pause_seconds)
            finally:
                await asyncio.gather(*running, return_exceptions=True)

    async def _ask(self, client: httpx.AsyncClient, name: str, model: ModelType) -> None:
        began = time.monotonic()
        try:
            answer = await client.post(f"{self._urls[name]}/predict/{model}", json=self._body(model))
            error = None if answer.status_code == httpx.codes.OK else f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as failure:
            error = repr(failure)
        excused = self._excuse(name, began)
        if error is None:
            self.answered += 1
            if not excused:  # a replica that was frozen meanwhile answers late
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        elif excused:
            self.excused += 1
        else:
            seconds = round(time.monotonic() - began, 2)
            self.failures.append({"replica": name, "model": model, "error": error, "seconds": seconds})

    def _body(self, model: ModelType) -> dict[str, Any]:
        user = NAMESPACE if self._generator.random() < 0.1 else _user(self._generator)
        body: dict[str, Any] = {"user_id": str(user)}
        if model == "goal":
            body["goal"] = {
                "goal_kind": "savings", "target_minor": 50_000, "currency": "EUR", "due_at": dt.datetime(2100, 1, 1, tzinfo=dt.UTC).isoformat(),
            }  # fmt: skip
        return body


def _user(generator: np.random.Generator) -> str:
    return f"{int(generator.integers(2**32)):08x}-0000-4000-8000-000000000000"


class Swaps:
    """Deploys and rolls back known versions by command, at intervals."""

    VERSIONS = "SELECT model_type, version, is_active FROM model_versions ORDER BY created_at DESC"

    def __init__(
        self, brokers: str, watch: Watch, *, seed: int, every_seconds: float, clock: Clock | None = None
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._brokers = brokers
        self._watch = watch
        self._generator = np.random.default_rng([seed, 4])
        self._every_seconds = every_seconds
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Send commands until cancelled."""
        while True:
            await asyncio.sleep(self._every_seconds)
            with contextlib.suppress(*DATABASE_AWAY_ERRORS):
                known = await self._watch.rows(self.VERSIONS)
                if (command := self._next_command(known)) is not None:
                    await self._command(*command)

    def _next_command(self, known: list[dict[str, Any]]) -> tuple[type[Command], str, dict[str, Any]] | None:
        idle = [row for row in known if not row["is_active"]]
        if not idle:
            return None
        row = idle[int(self._generator.integers(len(idle)))]
        if self._generator.random() < 0.4:
            return RollBackModel, row["model_type"], {}
        return DeployModel, row["model_type"], {"version": row["version"]}

    async def _command(self, kind: type[Command], model: str, fields: dict[str, Any]) -> None:
        gateway = CommandGateway(self._brokers, issuer="chaos", clock=self._clock)
        try:
            await gateway.start()
            await gateway.execute(gateway.command(kind, model, **fields), timeout_seconds=15.0)
            self.outcomes[f"{kind.__name__} succeeded"] += 1
        except CommandRejectedError:
            self.outcomes[f"{kind.__name__} rejected"] += 1
        except NoAnswerError:
            self.outcomes[f"{kind.__name__} unanswered"] += 1
        except FinCoachError as error:
            self.outcomes[f"{kind.__name__} failed: {type(error).__name__}"] += 1
        finally:
            await gateway.stop()
