"""The oracle's reducer against the product's, over drawn histories."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import AnyBehavioralEvent, RecommendationInteraction, TransactionCreated
from modelkit.features import REDUCER_VERSION, UserState, encode_state, fold
from tests.chaos.oracle.replayed_states import FIELDS, states_replayed
from tests.chaos.oracle.world import ArchivedEvent, StoredState, World, key_of
from tests.property.test_features import histories, moments

USER = uuid.UUID(int=1)
about_advice = {
    "event_id": st.uuids(), "user_id": st.just(USER), "occurred_at": moments, "consent": st.just(True),  # noqa: FBT003 - a value
    "recommendation_id": st.sampled_from(["r1", "r2", "auto_generated"]),
    "prediction_id": st.none() | st.sampled_from([uuid.UUID(int=7), uuid.UUID(int=8)]),
}  # fmt: skip
advice = st.builds(
    RecommendationInteraction,
    **about_advice,
    interaction_type=st.sampled_from(["view", "view", "click", "dismiss"]),
)
sessions = st.none() | st.sampled_from(["s1", "s2"])
currencies = st.sampled_from(["USD", "EUR", "CZK"])


@st.composite
def marked_histories(draw: st.DrawFn) -> list[AnyBehavioralEvent]:
    """Draw a history with sessions, several currencies, and recommendations that are shown and answered."""
    events = draw(st.permutations([*draw(histories), *draw(st.lists(advice, max_size=20))]))
    marked: list[AnyBehavioralEvent] = []
    for event in events:
        changes: dict[str, Any] = {"session_id": draw(sessions)}
        if isinstance(event, TransactionCreated):
            changes["currency"] = draw(currencies)
        marked.append(msgspec.structs.replace(event, **changes))
    return marked


def archived(event: AnyBehavioralEvent, offset: int) -> ArchivedEvent:
    """Return the row of an event."""
    payload: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    step = payload.get("interaction_type", "")
    return ArchivedEvent(
        *key_of(payload), payload["user_id"], payload["event_type"], step, consent=True, source="host", payload=payload, partition=0,
        offset=offset,
    )  # fmt: skip


@given(marked_histories())
def test_two_reducers_agree(events: list[AnyBehavioralEvent]) -> None:
    """The oracle's reducer and the product's agree on every history."""
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
    """The oracle defines every field of the user state."""
    assert [name for name, _ in FIELDS] == list(UserState.__struct_fields__)
