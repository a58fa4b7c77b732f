"""How often the data sets are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.dataset_agent import LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS, pause_after


@given(st.floats(0, 1e6))
def test_looking_never_takes_most_of_the_time_from_a_backlog(look_seconds: float) -> None:
    """While a backlog is read, each closed pane would be looked at alone, at the cost of reading on."""
    pause = pause_after(look_seconds, is_behind=True)
    assert SHORTEST_PAUSE_SECONDS <= pause <= LONGEST_PAUSE_SECONDS
    assert pause >= 9 * look_seconds or pause == LONGEST_PAUSE_SECONDS


def test_a_quick_look_is_followed_by_the_next_at_once() -> None:
    """A crossing would wait to be seen although nobody is busy."""
    assert pause_after(0.01, is_behind=True) == SHORTEST_PAUSE_SECONDS


@given(st.floats(0, 1e6))
def test_a_worker_that_keeps_up_looks_again_at_once(look_seconds: float) -> None:
    """A look that closed several epochs would let the next crossing wait for a second."""
    assert pause_after(look_seconds, is_behind=False) == SHORTEST_PAUSE_SECONDS
