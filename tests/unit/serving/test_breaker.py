"""The circuit breaker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.breaker import CircuitBreaker


def test_it_opens_after_failures_in_a_row_and_closes_after_a_success() -> None:
    """It opens after failures in a row, and closes after a success."""
    breaker = CircuitBreaker(failures=2, pause_seconds=1.0)
    breaker.failed(now=0.0)
    breaker.succeeded()
    breaker.failed(now=0.0)
    assert breaker.allows(now=0.0)
    breaker.failed(now=0.0)
    assert breaker.is_open
    assert not breaker.allows(now=0.9)
    assert breaker.allows(now=1.0)
    breaker.succeeded()
    assert breaker.allows(now=1.0)


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=200))
def test_while_open_it_allows_one_trial_a_pause(elapsed: list[float]) -> None:
    """While open it allows one trial in each pause."""
    breaker, now, trials = CircuitBreaker(failures=1, pause_seconds=1.0), 0.0, []
    breaker.failed(now=now)
    for seconds in elapsed:
        now += seconds
        if breaker.allows(now=now):
            trials.append(now)
            breaker.failed(now=now)
    assert all(later - earlier >= 1.0 for earlier, later in zip([0.0, *trials], trials, strict=False))
    assert len(trials) >= int(now / 1.3)
