"""The dataset agent: evaluates the data sets that are due, after each closed pane and at regular intervals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from backends.telemetry.logs import get_logger
from backends.waiting import wait_at_most
from schemas.errors import RetryLaterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.clock import Clock
    from streams.service import ContinuousLearningService

log = get_logger("streams.dataset_agent")
SHORTEST_PAUSE_SECONDS = 0.1  # panes closed within it are evaluated together
# While a worker reads a backlog, panes close without pause. Evaluations then take at most a tenth of its time.
PAUSE_PER_LOOK = 9.0
LONGEST_PAUSE_SECONDS = 0.5  # a crossing is to be announced within a second
LONGEST_DELAY_SECONDS = 5.0
HEALTHY_SECONDS = 15.0


class DatasetAgent:
    """Runs in every worker. The lock on a data set's row decides which worker evaluates it."""

    def __init__(
        self,
        service: ContinuousLearningService,
        clock: Clock,
        *,
        every_seconds: float,
        is_behind: Callable[[], bool] = lambda: False,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._clock = clock
        self._every_seconds = every_seconds
        self._is_behind = is_behind
        self._announce = announce
        self._wake = asyncio.Event()
        self._answered_at: float | None = None

    def wake(self) -> None:
        """Signal that there may be new panes."""
        self._wake.set()

    @property
    def is_healthy(self) -> bool:
        """Whether the database answered recently."""
        return self._answered_at is not None and self._clock.monotonic() - self._answered_at < HEALTHY_SECONDS

    async def run(self) -> None:
        """Evaluate data sets until cancelled; back off while the database is away."""
        delay = SHORTEST_PAUSE_SECONDS
        while True:
            self._wake.clear()
            began_at = self._clock.monotonic()
            try:
                for model_type in await self._service.due_models():
                    await self._service.check_training_readiness(model_type)
                    self._announce()  # a crossing need not wait for the relay's next round
                self._answered_at = self._clock.monotonic()
                delay = pause_after(self._answered_at - began_at, is_behind=self._is_behind())
            except RetryLaterError as error:
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)
                log.warning("readiness_delayed", error=repr(error), delay_seconds=delay)
            await asyncio.sleep(delay)
            await wait_at_most(self._wake, self._every_seconds)


def pause_after(look_seconds: float, *, is_behind: bool) -> float:
    """Return the pause after an evaluation that took ``look_seconds``.

    A worker that keeps up pauses only briefly, so that the next crossing is announced soon.
    """
    if not is_behind:
        return SHORTEST_PAUSE_SECONDS
    return min(max(PAUSE_PER_LOOK * look_seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
