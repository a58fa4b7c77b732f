"""The events of a steady stream, made from templates."""

from __future__ import annotations

import datetime as dt
import itertools

import msgspec

from benchmarks.event_templates import Stream, templates_of
from benchmarks.workload import behavioral_events
from fincoach_events.events import decode_event

NOW = dt.datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=dt.UTC)


def test_a_filled_template_is_its_event_with_another_identifier_and_time() -> None:
    """A flow would consist of dead letters, or of other events than are said."""
    events = list(behavioral_events(300, ends_at=NOW))
    made = [decode_event(encoded.value) for encoded in Stream(templates_of(events), salt=1).take(300, at=NOW)]
    for event, copy in zip(events, made, strict=True):
        assert copy == msgspec.structs.replace(event, event_id=copy.event_id, occurred_at=NOW)


def test_keys_are_those_of_the_users() -> None:
    """One user's events would lie in several partitions."""
    stream = Stream(templates_of(behavioral_events(50, ends_at=NOW)), salt=1)
    for encoded in stream.take(50, at=NOW):
        assert encoded.key == str(decode_event(encoded.value).user_id).encode()


def test_no_two_events_share_an_identifier() -> None:
    """A flow that goes through its templates again, or a second flow, would send duplicates."""
    templates = templates_of(behavioral_events(10, ends_at=NOW))
    made = [
        decode_event(encoded.value).event_id
        for salt in (1, 2)
        for stream in (Stream(templates, salt=salt),)
        for _ in range(3)
        for encoded in stream.take(20, at=NOW)
    ]
    assert len(set(made)) == len(made) == 120
    assert {event_id.version for event_id in made} == {7}
    assert {event_id.int >> 80 for event_id in made} == {int(NOW.timestamp() * 1000)}


def test_users_come_and_go_one_by_one() -> None:
    """The memory of a worker would be watched with users who stay, or who all leave at one moment."""
    templates = templates_of(behavioral_events(200, ends_at=NOW))
    stream = Stream(templates, salt=1, user_life=1_000)
    passes = [{encoded.key for encoded in stream.take(200, at=NOW)} for _ in range(11)]
    shared = [len(first & then) / len(first) for first, then in itertools.pairwise(passes)]
    assert all(0.6 < share < 0.95 for share in shared)
    assert not passes[0] & passes[10]
    for encoded in stream.take(200, at=NOW):
        assert encoded.key == str(decode_event(encoded.value).user_id).encode()
