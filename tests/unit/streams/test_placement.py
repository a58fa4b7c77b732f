"""When a worker is behind, and when the ledger is ahead of a topic."""

from __future__ import annotations

import pytest
from faust.types import TP

from schemas.topics import BEHAVIORAL_EVENTS
from streams.reading.positioner import CAUGHT_UP_RECORDS, LedgerAheadError, LedgerPlacement

MINE, ANOTHER_S_PARTITION = TP(BEHAVIORAL_EVENTS.name, 0), TP(BEHAVIORAL_EVENTS.name, 1)


async def nothing(topic: str, partitions: list[int]) -> dict[int, int]:
    """Read a ledger that is not asked here."""
    raise AssertionError((topic, partitions))


async def nobody(topic: str, partition: int, offset: int) -> int:
    """Be a broker that is not asked here."""
    raise AssertionError((topic, partition, offset))


def of_mine() -> LedgerPlacement:
    """Return the placement of a worker that has one partition."""
    placement = LedgerPlacement(
        {BEHAVIORAL_EVENTS.name}, nothing, first_offset=nobody, forget_cache=lambda _topic, _partition: None
    )
    placement.take_over({MINE})
    return placement


class Ends:
    """As much of a consumer as is asked for ends: what the last fetch said, and what the broker says."""

    def __init__(self, fetched: int, answered: int | Exception) -> None:
        self._fetched, self._answered = fetched, answered

    def highwater(self, _partition: TP) -> int:
        """Return the end as of the last fetch."""
        return self._fetched

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        """Return the ends of now."""
        if isinstance(self._answered, Exception):
            raise self._answered
        return dict.fromkeys(partitions, self._answered)


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
    placement = of_mine()
    placement.positions.place(partition, 100, 100 + records)
    assert placement.is_behind is behind


@pytest.mark.expects_errors("ledger_ahead_of_topic")
@pytest.mark.parametrize(
    ("fetched", "answered", "ahead"),
    [
        (100, AssertionError("nothing to ask"), False),
        (0, AssertionError("nothing is known yet"), False),
        (99, 100, False),
        (99, ConnectionError("away"), False),
        (99, 99, True),
    ],
)
async def test_a_topic_that_ends_below_the_position_stops_the_worker_once_the_broker_says_so(
    fetched: int, answered: int | Exception, *, ahead: bool
) -> None:
    """A worker would skip new events as read, or stop because a new leader lags behind for a moment."""
    placement = of_mine()
    placement.positions.place(MINE, 100, 100)
    await placement.check_not_ahead(Ends(fetched, answered))  # type: ignore[arg-type] # the part that is asked
    assert placement.failure.done() is ahead
    if ahead:
        assert isinstance(placement.failure.exception(), LedgerAheadError)
