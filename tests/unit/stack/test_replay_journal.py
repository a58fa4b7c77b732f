"""The producer's journal and its recount."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from uuid import UUID

import pytest

from fincoach_events.buffer import OutgoingEvent
from fincoach_events.events import PageViewed, encode_event
from stack.replay.journal import Journal, recount
from stack.replay.player import PlaySettings

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def seen(number: int) -> OutgoingEvent:
    """Return an acknowledged event."""
    event = PageViewed(event_id=UUID(int=number), user_id=UUID(int=1), occurred_at=NOON, consent=True, page_url="/")
    return OutgoingEvent(value=encode_event(event), key=b"k", event_id=event.event_id, event=event)


def test_a_run_is_recounted_from_its_lines(tmp_path: Path) -> None:
    """The recount tells valid, repeated and invalid records apart."""
    with Journal(tmp_path / "new" / "a.jsonl") as journal:
        for number in (1, 2, 2, 3):
            journal.note(seen(number), 0, number)
        raw = seen(4)
        journal.note(OutgoingEvent(value=raw.value, key=None, event_id=None), 0, 5)
        journal.note(OutgoingEvent(value=b"not json", key=None, event_id=None), 0, 6)
        journal.note(OutgoingEvent(value=b"{}", key=None, event_id=UUID(int=9)), 0, 7)
        count = journal.recount()
    assert (count.lines, count.distinct_events, count.duplicates, count.invalid, count.torn_lines) == (7, 4, 1, 2, 0)
    assert count.by_type == {"page_view/page_view": 4}


def test_runs_append_and_journals_add_up(tmp_path: Path) -> None:
    """A second run appends to the journal; an event in two journals counts as a duplicate."""
    for _ in range(2):
        with Journal(tmp_path / "a.jsonl") as journal:
            journal.note(seen(1), 0, 0)
    with Journal(tmp_path / "b.jsonl") as journal:
        journal.note(seen(1), 0, 2)
        journal.note(seen(2), 0, 3)
    count = recount([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert (count.lines, count.distinct_events, count.duplicates) == (4, 2, 2)


def test_a_torn_line_is_reported_and_not_counted(tmp_path: Path) -> None:
    """An incomplete last line is reported, and its event is not counted."""
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.note(seen(1), 0, 0)
        journal.note(seen(2), 0, 1)
    journal.close()
    path.write_bytes(path.read_bytes()[:-20])
    count = recount([path])
    assert (count.lines, count.distinct_events, count.torn_lines) == (1, 1, 1)


@pytest.mark.parametrize("wrong", [{"events_per_second": -1.0}, {"limit": -1}, {"duplicate_ratio": 1.5}])
def test_impossible_plays_are_refused(wrong: dict[str, float]) -> None:
    """Negative speeds and limits, and shares above 1, are refused."""
    with pytest.raises(ValueError, match=r"negative|from 0 to 1"):
        PlaySettings(**wrong)  # type: ignore[arg-type] # one field at a time
