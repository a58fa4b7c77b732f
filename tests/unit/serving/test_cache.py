"""The small memory of states."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.cache import ExpiringCache


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 0.4)), max_size=60), st.integers(1, 5))
def test_it_never_answers_what_is_too_old_and_never_grows(puts: list[tuple[int, float]], size: int) -> None:
    """It never answers a value that is too old, and never outgrows its size."""
    cache: ExpiringCache[int, float] = ExpiringCache(size=size, ttl_seconds=1.0)
    now, newest = 0.0, dict[int, float]()
    for key, elapsed in puts:
        now += elapsed
        cache.put(key, now, now=now)
        newest[key] = now
        assert len(cache) <= size
        for known, at in newest.items():
            assert cache.get(known, now=now) in ({at, None} if now < at + 1.0 else {None})
    if puts:
        assert cache.get(puts[-1][0], now=now) == now


def test_an_old_entry_is_forgotten_when_it_is_asked_for() -> None:
    """An old entry is dropped when it is asked for."""
    cache: ExpiringCache[str, int] = ExpiringCache(size=5, ttl_seconds=1.0)
    cache.put("a", 1, now=0.0)
    assert cache.get("a", now=1.0) is None
    assert len(cache) == 0


def test_no_time_to_live_means_no_cache() -> None:
    """A time to live of 0 means that nothing is cached."""
    cache: ExpiringCache[str, int] = ExpiringCache(size=5, ttl_seconds=0.0)
    cache.put("a", 1, now=3.0)
    assert cache.get("a", now=3.0) is None
