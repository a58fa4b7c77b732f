"""When a worker is behind."""

from __future__ import annotations

import pytest
from faust.types import TP

from schemas.topics import BEHAVIORAL_EVENTS
from streams.placement import CAUGHT_UP_RECORDS, LedgerPlacement

MINE, ANOTHER_S_PARTITION = TP(BEHAVIORAL_EVENTS.name, 0), TP(BEHAVIORAL_EVENTS.name, 1)


async def nothing(topic: str, partitions: list[int]) -> dict[int, int]:
    """Read a ledger that is not asked here."""
    raise AssertionError((topic, partitions))


async def nobody(topic: str, partition: int, offset: int) -> int:
    """Be a broker that is not asked here."""
    raise AssertionError((topic, partition, offset))


@pytest.mark.parametrize(
    ("partition", "records", "behind"),
    [
        (MINE, CAUGHT_UP_RECORDS, False),
        (MINE, CAUGHT_UP_RECORDS + 1, True),
        (ANOTHER_S_PARTITION, CAUGHT_UP_RECORDS + 1, False),
    ],
)
async def test_a_worker_is_behind_while_its_own_partitions_are_far_from_their_ends(
    partition: TP, records: int, *, behind: bool
) -> None:
    """Crossings would be waited for as in a backlog, or a backlog would be looked at after each batch."""
    placement = LedgerPlacement(
        {BEHAVIORAL_EVENTS.name}, nothing, first_offset=nobody, forget_cache=lambda _topic, _partition: None
    )
    placement.take_over({MINE})
    placement.positions.place(partition, 100, 100 + records)
    assert placement.is_behind is behind
