"""Which fetched batches are taken, skipped or read again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.reading.positions import Admission, Positions


def placed(next_offset: int = 100) -> Positions[str]:
    """Return positions with one partition."""
    positions: Positions[str] = Positions()
    positions.place("p", next_offset, end_offset=500)
    return positions


def test_a_partition_without_position_takes_nothing() -> None:
    """A revoked partition would be counted by two workers."""
    positions = placed()
    positions.forget("p")
    assert positions.admit("p", first=100, last=110) is Admission.SKIP
    positions.advance("p", 111)
    assert positions.get("p") is None


def test_what_is_behind_is_skipped_and_what_overlaps_is_taken() -> None:
    """Events would be counted again after a seek, or lost with a batch that overlaps."""
    positions = placed()
    assert positions.admit("p", first=50, last=99) is Admission.SKIP
    assert positions.admit("p", first=90, last=120) is Admission.TAKE
    assert positions.admit("p", first=100, last=120) is Admission.TAKE


def test_the_broker_is_asked_about_a_hole_that_is_seen_twice() -> None:
    """A batch that is lost twice would be jumped over, or one behind expired records waited for in vain."""
    positions = placed()
    assert positions.admit("p", first=130, last=140) is Admission.READ_AGAIN
    assert positions.admit("p", first=130, last=140) is Admission.ASK
    assert positions.admit("p", first=130, last=140) is Admission.ASK
    assert positions.admit("p", first=100, last=140) is Admission.TAKE


def test_what_was_fetched_behind_a_hole_does_not_hide_it() -> None:
    """With a long backlog behind expired records each batch would send the reader back once more, and none be taken."""
    positions = placed()
    assert positions.admit("p", first=130, last=140) is Admission.READ_AGAIN
    assert positions.admit("p", first=141, last=160) is Admission.SKIP
    assert positions.admit("p", first=161, last=180) is Admission.SKIP
    assert positions.admit("p", first=130, last=140) is Admission.ASK


def test_a_hole_that_turns_out_smaller_is_looked_at_again() -> None:
    """Records that came late would be jumped over."""
    positions = placed()
    assert positions.admit("p", first=150, last=160) is Admission.READ_AGAIN
    assert positions.admit("p", first=130, last=140) is Admission.READ_AGAIN
    assert positions.admit("p", first=150, last=160) is Admission.SKIP
    assert positions.admit("p", first=130, last=140) is Admission.ASK


def test_a_hole_that_grew_is_found_again() -> None:
    """When retention deletes more between two reads, the partition would wait for ever."""
    positions = placed()
    assert positions.admit("p", first=130, last=140) is Admission.READ_AGAIN
    assert positions.admit("p", first=141, last=160) is Admission.SKIP
    positions.forget_hole("p")
    assert positions.admit("p", first=141, last=160) is Admission.READ_AGAIN
    assert positions.admit("p", first=141, last=160) is Admission.ASK


def test_a_hole_is_forgotten_with_a_new_place() -> None:
    """A batch that was lost in each of two rebalances would be taken for a hole."""
    positions = placed()
    assert positions.admit("p", first=130, last=140) is Admission.READ_AGAIN
    positions.place("p", 100, end_offset=500)
    assert positions.admit("p", first=130, last=140) is Admission.READ_AGAIN


def test_a_commit_moves_on() -> None:
    """A committed batch would be taken again."""
    positions = placed()
    positions.advance("p", 600)
    found = positions.get("p")
    assert found is not None
    assert (found.next_offset, found.end_offset) == (600, 600)
    assert positions.items() == [("p", found)]


def test_a_late_commit_does_not_move_back() -> None:
    """A partition that was placed anew while its batch was committed would read what another worker has counted."""
    positions = placed()
    positions.place("p", 300, end_offset=500)
    positions.advance("p", 200)
    found = positions.get("p")
    assert found is not None
    assert found.next_offset == 300


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_no_offset_is_taken_twice_or_jumped_over_at_first_sight(fetches: list[tuple[int, int]]) -> None:
    """Some order of deliveries would count an offset twice, or skip one without a second look."""
    positions: Positions[str] = Positions()
    positions.place("p", 0, end_offset=100)
    taken: list[int] = []
    refused: set[tuple[int, int]] = set()
    for first, length in fetches:
        position = positions.get("p")
        assert position is not None
        start = position.next_offset
        admission = positions.admit("p", first=first, last=first + length - 1)
        if admission is Admission.READ_AGAIN:
            refused.add((start, first))
        assert admission is not Admission.ASK or (start, first) in refused
        assert admission is not Admission.TAKE or first <= start
        if admission in {Admission.TAKE, Admission.ASK}:  # as if each hole that is asked about were real
            taken += range(max(first, start), first + length)
            positions.advance("p", first + length)
    assert len(taken) == len(set(taken))
    assert taken == sorted(taken)
