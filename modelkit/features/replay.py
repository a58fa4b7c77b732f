"""States of one user at moments of the past: what training samples are made from. Pure; the same ``fold`` that serves."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

from fincoach_events.events import AnyBehavioralEvent
from modelkit.features.fold import fold
from modelkit.features.state import UserState


def replay(
    events: Iterable[AnyBehavioralEvent], moments: Iterable[dt.datetime]
) -> Iterator[tuple[dt.datetime, UserState | None]]:
    """Yield (moment, state) for each of the ascending ``moments``: the state after all events that happened strictly before it.

    ``events`` are those of one user in the order of the log. A late event is known only from its place in the log on, as
    it was when serving. The state is None before the first event. It is the live one: take its features, or a copy, before
    asking for the next.

    Raises:
        ValueError: when the moments do not ascend.
    """
    state: UserState | None = None
    waiting = iter(events)
    event = next(waiting, None)
    before: dt.datetime | None = None
    for moment in moments:
        if before is not None and moment < before:
            message = f"moments must ascend, {moment} comes after {before}"
            raise ValueError(message)
        before = moment
        while event is not None and event.occurred_at < moment:
            state = fold(state, event)
            event = next(waiting, None)
        yield moment, state
