"""Tallies of dead letters by producer, and the recognition of retried records."""

from __future__ import annotations

import uuid

import pytest

from streams.batches.dead_letter_limits import Tally
from streams.batches.dead_letters import MOST_PRODUCERS, _Kept, retried, tallied
from streams.batches.intake import DeadLetter
from tests.unit.streams.worlds import FetchedEvent, paid


def kept(producer: str, offset: int) -> _Kept:
    """Return a dead letter of a producer."""
    return _Kept(DeadLetter(FetchedEvent(paid(), offset=offset), "not_json", ""), {"producer": producer})


@pytest.mark.parametrize(
    ("dead", "valid", "watched", "expected"),
    [
        pytest.param([("shop", 3)], [], (), {"shop": Tally(1, 0, 1)}, id="dead alone"),
        pytest.param([("shop", 3)], [("bank", 4)], (), {"shop": Tally(1, 0, 1)}, id="another's valid record"),
        pytest.param(
            [("shop", 1), ("shop", 3), ("shop", 4)], [("shop", 0), ("shop", 2)], (), {"shop": Tally(3, 2, 2)}, id="behind the last"
        ),
        pytest.param([], [("shop", 0)], ("shop",), {"shop": Tally(0, 1, 0)}, id="watched, and valid again"),
        pytest.param([], [("shop", 0)], (), {}, id="nobody is watched"),
        pytest.param(
            [("unknown", 1), ("unknown", 5)], [("shop", 2), ("bank", 3)], (), {"unknown": Tally(2, 2, 1)}, id="of an unknown producer, among all"
        ),
    ],
)  # fmt: skip
def test_a_batch_is_tallied_by_producer(
    dead: list[tuple[str, int]], valid: list[tuple[str, int]], watched: tuple[str, ...], expected: dict[str, Tally]
) -> None:
    """Each producer's dead, valid and trailing records are counted apart."""
    assert tallied([kept(*each) for each in dead], valid, watched=watched) == expected


def test_a_record_that_was_sent_again_is_known_by_its_header() -> None:
    """A retried record is known by our header alone, not by a host's own."""
    record = FetchedEvent(paid(event_id=uuid.uuid4()))
    assert retried(record) is None
    record.headers = [("traceparent", b"00-1-2-01"), ("x", None)]
    assert retried(record) is None
    record.headers = [("retry_of", b"17"), ("attempt", b"1")]
    assert retried(record) == 17


def test_invented_names_are_nobodys_after_a_thousand() -> None:
    """Producers beyond the first thousand count as unknown."""
    found = tallied([kept(f"shop-{number}", number) for number in range(MOST_PRODUCERS + 50)], [], watched=())
    assert len(found) == MOST_PRODUCERS + 1
    assert found["unknown"] == Tally(50, 0, 50)
