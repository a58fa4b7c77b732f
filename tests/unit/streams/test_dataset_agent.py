"""The dataset agent's pauses and failures."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from backends.clock import ManualClock
from schemas.vocabulary import ModelType
from streams.dataset_agent import LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS, DatasetAgent, pause_after


@given(st.floats(0, 1e6))
def test_looking_never_takes_most_of_the_time_from_a_backlog(look_seconds: float) -> None:
    """Evaluations take at most a tenth of the time of a worker that is behind, up to the longest pause."""
    pause = pause_after(look_seconds, is_behind=True)
    assert SHORTEST_PAUSE_SECONDS <= pause <= LONGEST_PAUSE_SECONDS
    assert pause >= 9 * look_seconds or pause == LONGEST_PAUSE_SECONDS


def test_a_quick_look_is_followed_by_the_next_at_once() -> None:
    """A short evaluation is followed by a short pause."""
    assert pause_after(0.01, is_behind=True) == SHORTEST_PAUSE_SECONDS


@given(st.floats(0, 1e6))
def test_a_worker_that_keeps_up_looks_again_at_once(look_seconds: float) -> None:
    """A worker that keeps up pauses only briefly after any evaluation."""
    assert pause_after(look_seconds, is_behind=False) == SHORTEST_PAUSE_SECONDS


async def test_a_statement_that_is_wrong_ends_the_agent(clock: ManualClock) -> None:
    """A statement that can never succeed ends the agent and is not retried."""

    class Service:
        async def due_models(self) -> list[ModelType]:
            return ["goal"]

        async def check_training_readiness(self, model_type: ModelType) -> None:
            raise IntegrityError(str(model_type), None, Exception("planted"))

    agent = DatasetAgent(Service(), clock, every_seconds=0.01, is_behind=lambda: False, announce=lambda: None)  # type: ignore[arg-type]
    with pytest.raises(IntegrityError):
        await asyncio.wait_for(agent.run(), 5)
