"""The memory of recently archived events."""

from __future__ import annotations

import uuid

from streams.batches.recent import BUCKETS_LOG, PLACES, RecentEvents


def ids(count: int, *, start: int = 0) -> list[bytes]:
    """Return ``count`` event ids."""
    return [uuid.uuid5(uuid.NAMESPACE_OID, f"event-{number}").bytes for number in range(start, start + count)]


def test_what_was_archived_is_suspected_and_nothing_else() -> None:
    """Remembered ids are found again, and new ones are not."""
    recent = RecentEvents()
    recent.remember(ids(2_000))
    assert recent.seen([*ids(3, start=9_000), *ids(2, start=1_990)]) == [3, 4]
    assert recent.seen(ids(2_000)) == list(range(2_000))
    assert recent.seen(ids(2_000, start=50_000)) == []


def test_ids_that_hardly_differ_find_slots_of_their_own() -> None:
    """Consecutive ids spread over the buckets."""
    recent = RecentEvents()
    counted = [uuid.UUID(int=number).bytes for number in range(1, 1_001)]
    recent.remember(counted)
    assert len(recent.seen(counted)) == 1_000


def test_its_size_never_changes() -> None:
    """The memory keeps its size and the newest ids."""
    recent = RecentEvents()
    for start in range(0, 400_000, 50_000):
        recent.remember(ids(50_000, start=start))
    assert recent._prints.nbytes == 8 * PLACES << BUCKETS_LOG
    assert len(recent.seen(ids(20_000, start=380_000))) > 19_900
    assert recent.seen(ids(1_000)) == []
