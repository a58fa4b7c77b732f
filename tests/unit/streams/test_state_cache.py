"""The cache of user states."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.batches.state_cache import ENTRY_BYTES, StateCache

USERS = [bytes([number]) * 16 for number in range(5)]


def test_the_newest_state_of_a_user_is_given() -> None:
    """The cache returns a user's newest state."""
    cache = StateCache()
    cache.put([(USERS[0], b"old"), (USERS[0], b"new")])
    assert cache.get(USERS[0]) == b"new"
    assert cache.get(USERS[1]) is None


def test_users_who_were_quiet_longest_leave_first() -> None:
    """The least recently changed states leave the cache first."""
    cache = StateCache()
    cache.put((user, b"x" * 100) for user in USERS)
    cache.put([(USERS[0], b"y" * 100)])
    cache.shrink(2 * (100 + ENTRY_BYTES))
    assert [user for user in USERS if cache.get(user)] == [USERS[0], USERS[4]]


@given(st.lists(st.tuples(st.sampled_from(USERS), st.binary(max_size=40)), max_size=40), st.integers(0, 1_500))
def test_the_bound_holds_and_the_sum_is_right(puts: list[tuple[bytes, bytes]], most: int) -> None:
    """The byte count is right, and shrinking keeps the bound."""
    cache = StateCache()
    cache.put(puts)
    assert cache.bytes == sum(len(state) + ENTRY_BYTES for state in dict(puts).values())
    cache.shrink(most)
    held = [cache.get(user) for user in USERS]
    assert cache.bytes == sum(len(state) + ENTRY_BYTES for state in held if state is not None) <= most
    assert len(cache) == sum(state is not None for state in held)
