"""User states of a partition: loads them, folds new events into them, and isolates events on which the reducer fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from backends.database.repositories.ingestion import SavedState
from backends.telemetry.logs import get_logger, hashed
from fincoach_events.events import AnyBehavioralEvent
from modelkit.features import REDUCER_VERSION, UserState, copy_state, decode_state, encode_state, fold
from modelkit.statistics.consistency import findings
from modelkit.statistics.events import FoldedEvent
from schemas.codec import decode_behavioral_event
from schemas.errors import FinCoachError
from schemas.vocabulary import DeadLetterReason
from streams.batches.intake import Accepted, DeadLetter
from streams.batches.recent import RecentEvents
from streams.batches.state_cache import StateCache

if TYPE_CHECKING:
    from backends.database.repositories.ingestion import IngestionRepository
    from streams.panes import Watermarks

log = get_logger("streams.batches.folding")
States = dict[bytes, UserState]  # by the 16 bytes of the user's id
AcceptedEvent = Accepted[AnyBehavioralEvent]


class ReducerFailedError(FinCoachError):
    """The reducer failed on an event of the batch; the states in memory cannot be trusted."""


@dataclass(slots=True)
class PartitionMemory:
    """What a worker remembers of a partition. It changes only after a commit, and holds while the ledger is at ``through``."""

    through: int
    states: StateCache = field(default_factory=StateCache)
    watermarks: Watermarks | None = None
    recent: RecentEvents = field(default_factory=RecentEvents)

    def move_on(
        self, through: int, *, watermarks: Watermarks, states: Iterable[tuple[bytes, bytes]], event_ids: Sequence[bytes]
    ) -> None:
        """Move to ``through`` and remember what the committed batch wrote."""
        self.through = through
        self.watermarks = watermarks
        self.states.put(states)
        if event_ids:
            self.recent.remember(event_ids)


@dataclass(slots=True)
class FoldedBatch:
    """The folded new events of a batch: what to aggregate, the last event of each changed state, and what failed."""

    events: list[FoldedEvent] = field(default_factory=list)
    touched: dict[bytes, AcceptedEvent] = field(default_factory=dict)
    failed: list[DeadLetter] = field(default_factory=list)


async def load_states(repository: IngestionRepository, cache: StateCache, accepted: Sequence[AcceptedEvent]) -> States:
    """Return copies of the states of a batch's users. A state of another reducer version is folded anew from the archive."""
    users = {item.user: item.message.user_id for item in accepted if item.message.consent}
    states = {user: decode_state(encoded) for user in users if (encoded := cache.get(user)) is not None}
    missing = [user_id for user, user_id in users.items() if user not in states]
    if not missing:
        return states
    outdated: list[UUID] = []
    for user_id, row in (await repository.states(missing)).items():
        if row.reducer_version == REDUCER_VERSION:
            states[user_id.bytes] = decode_state(row.state)
        else:
            outdated.append(user_id)
    if outdated:
        await _fold_anew(repository, states, outdated)
    return states


async def _fold_anew(repository: IngestionRepository, states: States, users: Sequence[UUID]) -> None:
    """Fold the whole history of ``users``. An archived event that the current code rejects is left out of its user's state."""
    left_out = 0
    async for user_id, text in repository.archived_payloads(users):
        user = user_id.bytes
        state = states.get(user)
        kept = copy_state(state) if state is not None else None
        try:
            states[user] = fold(state, decode_behavioral_event(text.encode()))
        except Exception as error:  # noqa: BLE001 - raising would stop the partition for ever, over an event that is already counted
            left_out += 1
            log.warning("archived_event_left_out", error=repr(error), user=hashed(user_id))
            _restore(states, user, kept)
    log.info("states_folded_anew", users=len(users), left_out=left_out, reducer_version=REDUCER_VERSION)


def fold_new(
    accepted: Sequence[AcceptedEvent], states: States, *, watermarks: Watermarks, careful: bool
) -> FoldedBatch:
    """Fold new events with consent into ``states``, in the order of their offsets.

    With ``careful`` each state is copied before its step. An event on which the reducer fails is then reported, and its
    user's state stays as it was before.

    Raises:
        ReducerFailedError: the reducer fails, and ``careful`` is false.
    """
    batch = FoldedBatch()
    for item in accepted:
        event = item.message
        if not event.consent:
            continue
        user = item.user
        state = states.get(user)
        kept = copy_state(state) if careful and state is not None else None
        before = state.transactions if state is not None else 0
        seconds = item.at / 1_000_000
        at = round(seconds * 1000.0)
        try:
            found = findings(state, event, at=at)
            state = fold(state, event, at=at)
        except Exception as error:
            if not careful:
                raise ReducerFailedError from error
            batch.failed.append(_failure(item, error))
            _restore(states, user, kept)
            continue
        states[user] = state
        batch.touched[user] = item
        age = watermarks.age(event.source, seconds)
        batch.events.append(FoldedEvent(event, age, before, state.transactions, found))
    return batch


def states_to_save(folded: FoldedBatch, states: States) -> list[SavedState]:
    """Return the changed states, encoded, with the offset of the last event in each."""
    return [
        SavedState(item.message.user_id, item.offset, encode_state(states[user]))
        for user, item in folded.touched.items()
    ]


def _restore(states: States, user: bytes, kept: UserState | None) -> None:
    if kept is None:
        states.pop(user, None)
    else:
        states[user] = kept


def _failure(item: AcceptedEvent, error: Exception) -> DeadLetter:
    log.warning("reducer_failed", error=repr(error), offset=item.offset, user=hashed(item.message.user_id))
    return DeadLetter(item.record, DeadLetterReason.REDUCER_ERROR, repr(error))
