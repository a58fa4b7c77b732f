"""User states of a partition: loading, folding new events into them, isolating events on which the reducer fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from backends.telemetry.logs import get_logger, hashed
from fincoach_events.events import AnyBehavioralEvent
from models.features import REDUCER_VERSION, UserState, copy_state, decode_state, encode_state, fold
from schemas.codec import decode_behavioral_event
from schemas.errors import FinCoachError
from schemas.vocabulary import DeadLetterReason
from streams.aggregations import FoldedEvent
from streams.consistency import findings
from streams.intake import Accepted, DeadLetter

if TYPE_CHECKING:
    from backends.database.repositories.ingestion import IngestionRepository
    from streams.panes import Watermarks

log = get_logger("streams.folding")
States = dict[UUID, UserState]
AcceptedEvent = Accepted[AnyBehavioralEvent]


class ReducerFailedError(FinCoachError):
    """The reducer failed on an event of the batch; the states in memory cannot be trusted."""


@dataclass(slots=True)
class PartitionMemory:
    """What a worker remembers of a partition: valid only while the ledger stands at ``through``."""

    through: int
    states: States = field(default_factory=dict)
    watermarks: Watermarks | None = None

    def move_on(self, through: int, *, most_states: int) -> None:
        """Stand at ``through``; of more than ``most_states`` states the ones known longest go."""
        self.through = through
        for user_id in list(self.states)[: max(len(self.states) - most_states, 0)]:
            del self.states[user_id]


@dataclass(slots=True)
class FoldedBatch:
    """The new events of a batch, folded: what to aggregate, whose states changed (with the last offset), what failed."""

    events: list[FoldedEvent] = field(default_factory=list)
    touched: dict[UUID, int] = field(default_factory=dict)
    failed: list[DeadLetter] = field(default_factory=list)


class StatesToSave(TypedDict):
    """Arguments of the repository's ``save_states``."""

    states: dict[UUID, tuple[int, bytes]]
    reducer_version: int


async def load_states(
    repository: IngestionRepository, memory: PartitionMemory, accepted: Sequence[AcceptedEvent]
) -> None:
    """Bring the states of all users of a batch into memory; one of another reducer version is folded anew from the archive."""
    wanted = {item.message.user_id for item in accepted if item.message.consent}
    missing = list(wanted - memory.states.keys())
    if not missing:
        return
    outdated: list[UUID] = []
    for user_id, row in (await repository.states(missing)).items():
        if row.reducer_version == REDUCER_VERSION:
            memory.states[user_id] = decode_state(row.state)
        else:
            outdated.append(user_id)
    if outdated:
        await _fold_anew(repository, memory.states, outdated)


async def _fold_anew(repository: IngestionRepository, states: States, users: Sequence[UUID]) -> None:
    for user_id, text in await repository.archived_payloads(users):
        states[user_id] = fold(states.get(user_id), decode_behavioral_event(text.encode()))
    log.info("states_folded_anew", users=len(users), reducer_version=REDUCER_VERSION)


def fold_new(
    accepted: Sequence[AcceptedEvent], states: States, *, watermarks: Watermarks, careful: bool
) -> FoldedBatch:
    """Fold new events with consent into ``states``, in the order of their offsets.

    With ``careful`` each state is copied before its step, and an event on which the reducer fails is reported
    with its user's state as it was before.

    Raises:
        ReducerFailedError: without ``careful``, when the reducer fails.
    """
    batch = FoldedBatch()
    for item in accepted:
        event = item.message
        if not event.consent:
            continue
        state = states.get(event.user_id)
        kept = copy_state(state) if careful and state is not None else None
        before = state.transactions if state is not None else 0
        try:
            found = findings(state, event)
            state = fold(state, event)
        except Exception as error:
            if not careful:
                raise ReducerFailedError from error
            batch.failed.append(_failure(item, error))
            _restore(states, event.user_id, kept)
            continue
        states[event.user_id] = state
        batch.touched[event.user_id] = item.offset
        age = watermarks.age(event.source, event.occurred_at.timestamp())
        batch.events.append(FoldedEvent(event, age, before, state.transactions, found))
    return batch


def states_to_save(folded: FoldedBatch, states: States) -> StatesToSave:
    """Return the changed states, encoded, with the offset of the last event in each."""
    encoded = {user_id: (offset, encode_state(states[user_id])) for user_id, offset in folded.touched.items()}
    return {"states": encoded, "reducer_version": REDUCER_VERSION}


def _restore(states: States, user_id: UUID, kept: UserState | None) -> None:
    if kept is None:
        states.pop(user_id, None)
    else:
        states[user_id] = kept


def _failure(item: AcceptedEvent, error: Exception) -> DeadLetter:
    log.warning("reducer_failed", error=repr(error), offset=item.offset, user=hashed(item.message.user_id))
    return DeadLetter(item.record, DeadLetterReason.REDUCER_ERROR, repr(error))
