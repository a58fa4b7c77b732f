"""Event and user identifiers."""

from __future__ import annotations

import time
import uuid

from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.identifiers import event_id_from_key, new_event_id, user_id_from_name


def test_new_ids_are_version_seven_and_carry_the_time() -> None:
    """New ids are UUIDv7 and begin with the time in milliseconds."""
    before = time.time_ns() // 1_000_000
    identifier = new_event_id()
    after = time.time_ns() // 1_000_000
    assert identifier.version == 7
    assert identifier.variant == uuid.RFC_4122
    assert before <= identifier.int >> 80 <= after


def test_new_ids_differ() -> None:
    """New ids differ even within one millisecond."""
    assert len({new_event_id() for _ in range(10_000)}) == 10_000


@given(st.text(), st.text())
def test_keys_name_events(one: str, other: str) -> None:
    """Equal idempotency keys yield equal ids, different keys different ids."""
    assert event_id_from_key(one) == event_id_from_key(one)
    assert (event_id_from_key(one) == event_id_from_key(other)) == (one == other)


def test_users_of_different_sets_differ() -> None:
    """Customer 1 of one data set is another user than customer 1 of a second set."""
    assert user_id_from_name("a", "1") == user_id_from_name("a", "1")
    assert user_id_from_name("a", "1") != user_id_from_name("b", "1")
