"""The oracle's own reducer: against the product's, over histories that both have never seen."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from hypothesis import given

from fincoach_events.events import AnyBehavioralEvent
from models.features import REDUCER_VERSION, UserState, encode_state, fold
from tests.chaos.oracle_world import ArchivedEvent, StoredState, World, key_of
from tests.chaos.replayed_states import FIELDS, states_replayed
from tests.property.test_features import histories


def archived(event: AnyBehavioralEvent, offset: int) -> ArchivedEvent:
    """Return the row of an event."""
    payload: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    step = payload.get("interaction_type", "")
    return ArchivedEvent(
        *key_of(payload), payload["user_id"], payload["event_type"], step, consent=True, source="host", payload=payload, partition=0,
        offset=offset,
    )  # fmt: skip


@given(histories)
def test_two_reducers_agree(events: list[AnyBehavioralEvent]) -> None:
    """A law of user states that compares with another rule would break on every run, or on none."""
    state: UserState | None = None
    for event in events:
        state = fold(state, event)
    if state is None:
        return
    rows = [archived(event, offset) for offset, event in enumerate(events)]
    stored = StoredState(str(uuid.UUID(int=1)), REDUCER_VERSION, 0, len(rows) - 1, encode_state(state))
    world = World(archive=rows, states=[stored], run={"minimums": {"users": 1}})
    assert states_replayed(world).holds, states_replayed(world)


def test_the_oracle_knows_every_field() -> None:
    """A field that is added to the state would be compared with nothing."""
    assert [name for name, _ in FIELDS] == list(UserState.__struct_fields__)
