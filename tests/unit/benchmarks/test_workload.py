"""The events that the benchmarks put on the topic."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from uuid import UUID

from benchmarks.workload import behavioral_events, with_repetitions
from fincoach_events.events import EVENT_TYPES, RecommendationInteraction, decode_event, encode_event

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def test_the_same_seed_gives_the_same_events() -> None:
    """Two sides of a comparison would not be given the same work."""
    assert list(behavioral_events(500, ends_at=NOW)) == list(behavioral_events(500, ends_at=NOW))
    assert list(behavioral_events(500, ends_at=NOW)) != list(behavioral_events(500, ends_at=NOW, seed=8))


def test_every_event_is_valid_and_none_comes_twice() -> None:
    """Dead letters or duplicates would be measured in place of events."""
    events = list(behavioral_events(2_000, ends_at=NOW))
    assert [decode_event(encode_event(event)) for event in events] == events
    assert len({event.event_id for event in events}) == len(events)
    assert {event.event_id.version for event in events} == {7}


def test_times_grow_and_stay_in_the_past() -> None:
    """Events of the future are dead letters, and ids out of order would make index pages split as they never do."""
    events = list(behavioral_events(2_000, ends_at=NOW))
    times = [event.occurred_at for event in events]
    assert times == sorted(times)
    assert times[-1] < NOW
    milliseconds = [event.event_id.int >> 80 for event in events]
    assert milliseconds == sorted(milliseconds)


def test_all_types_and_heavy_users_are_there() -> None:
    """Reducers and counters of a type would not be part of what is measured, or every user would be alike."""
    events = list(behavioral_events(20_000, ends_at=NOW))
    assert {type(event) for event in events} == set(EVENT_TYPES)
    users = Counter(event.user_id for event in events)
    assert users.most_common(1)[0][1] > 10 * len(events) / len(users)


def test_only_what_was_shown_is_answered() -> None:
    """The data set of recommendations would be held back for its answers to nothing, and never cross its threshold."""
    shown = set[tuple[UUID, str]]()
    answers = 0
    for event in behavioral_events(5_000, ends_at=NOW):
        if not isinstance(event, RecommendationInteraction):
            continue
        about = (event.user_id, event.recommendation_id)
        if event.interaction_type == "view":
            shown.add(about)
        else:
            answers += 1
            assert about in shown
    assert answers > 200


def test_a_share_of_the_events_comes_again_after_itself() -> None:
    """The duplicate path would be measured without duplicates, or with another share of them than is said."""
    events = list(behavioral_events(20_000, ends_at=NOW))
    sent = list(with_repetitions(iter(events), share=0.01))
    seen, repeated = set[UUID](), 0
    for event in sent:
        repeated += event.event_id in seen
        seen.add(event.event_id)
    assert seen == {event.event_id for event in events}
    assert repeated == len(sent) - len(events)
    assert 0.007 < repeated / len(events) < 0.013
