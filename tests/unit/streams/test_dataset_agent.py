"""How often the data sets are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.dataset_agent import LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS, pause_after


@given(st.floats(0, 1e6))
def test_looking_never_takes_most_of_the_time(look_seconds: float) -> None:
    """While a backlog is read, each closed pane would be looked at alone, at the cost of reading on."""
    pause = pause_after(look_seconds)
    assert SHORTEST_PAUSE_SECONDS <= pause <= LONGEST_PAUSE_SECONDS
    assert pause >= 3 * look_seconds or pause == LONGEST_PAUSE_SECONDS


def test_a_quick_look_is_followed_by_the_next_at_once() -> None:
    """A crossing would wait to be seen although nobody is busy."""
    assert pause_after(0.02) == SHORTEST_PAUSE_SECONDS
