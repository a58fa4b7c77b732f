"""Archive, states and sums in a real database do not depend on how a log is repeated and cut into batches."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backends.clock import ManualClock
from backends.database.repositories.ingestion import next_offsets
from backends.database.unit_of_work import Database
from fincoach_events.events import AnyBehavioralEvent, encode_event
from modelkit.features import UserState, fold
from schemas.topics import BEHAVIORAL_EVENTS
from streams.batches.batch import LedgerBatch
from streams.batches.dead_letter_limits import LimitPolicy
from streams.batches.dead_letters import DeadLetterService
from streams.batches.events import EventIngestion
from tests.four_models import data_sets_of_four
from tests.integration.streams_workers import database_of, pane_sums, transaction
from tests.services import connect

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
EVENTS = 25
Plan = tuple[
    list[int], list[int], list[int]
]  # numbers of events as they were sent, where batches end, when the memory is lost


class Fetched:
    """A record of the one partition."""

    def __init__(self, event: AnyBehavioralEvent, offset: int, *, refused: bool = False) -> None:
        self.offset = offset
        self.timestamp = int(NOW.timestamp() * 1000)
        self.key: bytes | None = str(event.user_id).encode()
        self.value: bytes | None = refused_by_the_database(event) if refused else encode_event(event)
        self.headers: list[tuple[str, bytes | None]] = []


def refused_by_the_database(event: AnyBehavioralEvent) -> bytes:
    """Return ``event`` with an unknown field whose number is valid JSON but too large for a column."""
    return encode_event(event)[:-1] + b',"unknown":1e200000}'


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a log that holds every event at least once, first times in order, and how it is delivered."""
    sent = list(range(EVENTS))
    for again in draw(st.lists(st.integers(0, EVENTS - 1), max_size=20)):
        first = sent.index(again)
        sent.insert(first + 1 + draw(st.integers(0, len(sent) - first - 1)), again)
    ends = sorted({*draw(st.lists(st.integers(1, len(sent)), max_size=6)), len(sent)})
    return sent, ends, draw(st.lists(st.integers(0, 6), max_size=2))


def worker(database: Database, *, state_cache_bytes: int) -> EventIngestion:
    """Return the ingestion of a newly started worker."""
    clock = ManualClock(NOW)
    letters = DeadLetterService(clock, LimitPolicy(), check=lambda: None)
    return EventIngestion(database, clock, letters, data_sets=data_sets_of_four(), state_cache_bytes=state_cache_bytes)


async def outcome(database: Database, connection: asyncpg.Connection, plan: Plan) -> dict[str, Any]:
    """Deliver a log to a worker that sometimes loses its memory; return what the database holds."""
    sent, ends, forgets = plan
    records = [Fetched(transaction(number, users=4), offset) for offset, number in enumerate(sent)]
    return await delivered(database, connection, records, ends=ends, forgets=forgets)


async def delivered(
    database: Database,
    connection: asyncpg.Connection,
    records: Sequence[Fetched],
    *,
    ends: Sequence[int],
    forgets: Collection[int],
) -> dict[str, Any]:
    """Deliver ``records`` in batches to an empty database; return what it holds afterwards."""
    await connection.execute("TRUNCATE behavioral_events, user_states, panes, ledger, outbox, dead_letters")
    await next_offsets(database, BEHAVIORAL_EVENTS, [0])
    ingestion = worker(database, state_cache_bytes=1_500)
    start = 0
    for number, end in enumerate(ends):
        if number in forgets:
            ingestion.forget(0)
        await ingestion.ingest(batch(records[start:end], start))
        start = end
    return {
        "archive": await connection.fetch('SELECT event_id, payload FROM behavioral_events ORDER BY "offset"'),
        "states": await connection.fetch("SELECT user_id, state FROM user_states ORDER BY user_id"),
        "sums": await pane_sums(connection),
        "dead": await connection.fetch('SELECT "offset", reason FROM dead_letters ORDER BY "offset"'),
    }


def batch(records: Sequence[Fetched], start: int, *, partition: int = 0) -> LedgerBatch:
    """Return records as a batch."""
    return LedgerBatch(topic=BEHAVIORAL_EVENTS, partition=partition, from_offset=start, records=records)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans())
def test_repetitions_and_batches_do_not_matter(database_url: str, plan: Plan) -> None:
    """Repeats and other batches do not change what is archived, folded or counted."""

    async def both() -> None:
        connection = await connect(database_url)
        async with database_of(database_url) as database:
            once = await outcome(database, connection, (list(range(EVENTS)), [EVENTS], []))
            found = await outcome(database, connection, plan)
        await connection.close()
        assert found["archive"] == once["archive"]
        assert found["states"] == once["states"]
        repeated = len(plan[0]) - EVENTS
        assert once["sums"]["archived"] == EVENTS
        assert found["sums"] == {**once["sums"], "records": EVENTS + repeated, "duplicates": repeated}

    asyncio.run(both())


BREAKING = 3  # the number of the event on which the reducer fails
Copies = list[tuple[int, bool]]  # numbers of events as they were sent, and whether the database refuses that copy


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=14),
    cuts=st.lists(st.integers(1, 13), max_size=4),
    forgets=st.lists(st.integers(0, 4), max_size=2),
)
# An archived event comes again in a form that the database rejects, alone in its batch, after a restart.
@example(sent=[(0, False), (0, True)], cuts=[1], forgets=[1])
# An event on which the reducer fails comes twice in one batch: both are dead letters, neither is a duplicate.
@example(sent=[(BREAKING, False), (0, False), (BREAKING, False)], cuts=[], forgets=[])
def test_batches_do_not_matter_for_what_cannot_be_taken_in(
    database_url: str, sent: Copies, cuts: list[int], forgets: list[int]
) -> None:
    """A good and a rejected copy of one event in a batch end as if they came in two batches."""

    def failing(state: UserState | None, event: AnyBehavioralEvent, *, at: int | None = None) -> UserState:
        if event.event_id == transaction(BREAKING).event_id:
            raise ArithmeticError("planted")
        return fold(state, event, at=at)

    async def both() -> None:
        records = [Fetched(transaction(number, users=2), at, refused=refused) for at, (number, refused) in enumerate(sent)]  # fmt: skip
        ends = sorted({*(cut for cut in cuts if cut < len(sent)), len(sent)})
        connection = await connect(database_url)
        async with database_of(database_url) as database:
            one_by_one = await delivered(database, connection, records, ends=range(1, len(sent) + 1), forgets=())
            found = await delivered(database, connection, records, ends=ends, forgets=forgets)
        await connection.close()
        assert found["sums"]["records"] == len(sent)
        if (BREAKING, True) in sent:  # one event, two reasons: which one is recorded depends on the batch
            one_by_one["dead"], found["dead"] = ([row["offset"] for row in rows] for rows in (one_by_one["dead"], found["dead"]))  # fmt: skip
        assert found == one_by_one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.batches.folding.fold", failing)
        asyncio.run(both())


async def test_states_in_hand_stay_within_their_bound(database_url: str) -> None:
    """A worker keeps its cached states within its share of memory."""
    async with database_of(database_url) as database:
        await next_offsets(database, BEHAVIORAL_EVENTS, [0, 1, 2])
        ingestion = worker(database, state_cache_bytes=20_000)
        for number in range(6):
            partition, start = number % 3, number // 3 * 200
            events = [transaction(1_000 * partition + start + place, users=5_000) for place in range(200)]
            records = [Fetched(event, start + place) for place, event in enumerate(events)]
            await ingestion.ingest(batch(records, start, partition=partition))
            assert 0 < sum(memory.states.bytes for memory in ingestion._memories.values()) <= 20_000
        assert list(ingestion._memories) == [0, 1, 2]
        ingestion.forget(1)
        assert list(ingestion._memories) == [0, 2]
