"""Snapshots read from a real archive: what they hold, what is new in them, and that reading again gives the same bytes."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from backends.database.repositories.training import ChampionVersion, Run
from backends.database.unit_of_work import Database
from backends.store.content import ContentStore
from fincoach_events.events import RecommendationInteraction
from fincoach_events.identifiers import event_id_from_key, user_id_from_name
from modelkit.training.interface import CLEANING_FILE, Snapshot
from schemas.codec import encode
from schemas.messages.envelope import OffsetRange
from schemas.messages.predictions import PredictionServed
from schemas.tables import ledger, predictions, snapshots
from schemas.topics import PREDICTIONS
from schemas.vocabulary import ArtifactKind
from tests.training_factories import (
    FIRST_DAY,
    archive,
    crossing,
    database_of,
    queue_of,
    record_epoch,
    record_quarantine,
    settings_of,
    span,
    transaction,
)
from trainers.snapshots.service import SnapshotService, StoredSnapshot, without


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a service's database."""
    database = database_of(database_url)
    yield database
    await database.close()


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    """Give an empty store."""
    return ContentStore(f"file://{tmp_path}/store")


async def run_of(database: Database, url: str, folder: Path, *, ranges: list[OffsetRange], epoch: int = 1) -> Run:
    """Return a leased run over the given ranges."""
    queue = queue_of(database, settings_of(url, folder))
    message = crossing(epoch=epoch, ranges=ranges)
    await record_epoch(database, message)
    await queue.add_crossing(message)
    run = await queue.lease()
    assert run is not None
    return run


async def taken(
    database: Database, store: ContentStore, run: Run, champion: ChampionVersion | None = None
) -> StoredSnapshot:
    """Take a snapshot, with pages small enough that there are several."""
    return await SnapshotService(database, store, page_rows=7, seed=0).take(run, champion)


def opened(store: ContentStore, stored: StoredSnapshot) -> Snapshot:
    """Return the stored snapshot."""
    return Snapshot(store.get(stored.address), digest=stored.digest)


async def test_it_holds_the_consented_events_below_the_cut_in_the_order_of_the_log(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """A snapshot holds the consented events below the cut, in the order of the log."""
    events = [transaction(f"user-{number % 3}", number, 100 + number, consent=number % 5 != 4) for number in range(40)]
    ranges = await archive(database, events)
    before_cut = [msgspec.structs.replace(item, to_offset=item.to_offset - 2) for item in ranges]
    snapshot = opened(
        store, await taken(database, store, await run_of(database, database_url, tmp_path, ranges=before_cut))
    )
    expected = {
        user_id: [event for event in events if event.user_id == user_id]
        for user_id in sorted({event.user_id for event in events})
    }
    left_out = {
        event.event_id
        for number in range(2)
        for event in [event for event in events if event.user_id.int % 2 == number][-2:]
    }
    found = {history.user_id: history.events for history in snapshot.users()}
    assert list(found) == list(expected)
    for user_id, members in expected.items():
        assert found[user_id] == [event for event in members if event.consent and event.event_id not in left_out]


async def test_reading_the_same_ranges_again_gives_the_same_digest(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """Reading the same ranges again gives the same digest."""
    ranges = await archive(database, [transaction(f"user-{number % 4}", number, 100) for number in range(50)])
    run = await run_of(database, database_url, tmp_path, ranges=ranges)
    first = await taken(database, store, run)
    await archive(database, [transaction("late", 60, 5)], start=1_000)
    other = ContentStore(f"file://{tmp_path}/other")
    assert (await taken(database, other, run)).digest == first.digest


async def test_the_decisions_about_unclean_events_travel_with_the_snapshot(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """A snapshot holds the decisions about its unclean events, and its digest names them."""
    events = [transaction(f"user-{number % 4}", number + 0.01, 100 + number) for number in range(50)]
    again = msgspec.structs.replace(events[7], event_id=uuid4())
    ranges = await archive(database, [*events, again, transaction("user-1", 60.01, 0)])
    stored = await taken(database, store, await run_of(database, database_url, tmp_path, ranges=ranges))
    files = store.get(stored.address)
    record = msgspec.json.decode(files[CLEANING_FILE])
    assert record["events"] == stored.cleaning["events"] == {"kept": 50, "repaired": 0, "left_out": 2}
    assert record["reasons"]["duplicate_content"]["examples"] == [str(again.event_id)]
    assert stored.cleaning["reasons"] == {"duplicate_content": 1, "zero_amount": 1}
    snapshot = opened(store, stored)
    assert (snapshot.events.num_rows, snapshot.kept.num_rows) == (52, 50)
    assert store.put("snapshots", {**files, CLEANING_FILE: b"{}"}) != stored.address


async def test_what_is_quarantined_reaches_no_snapshot_neither_as_new_nor_as_replay(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """Quarantined data reaches no snapshot, neither as new nor as replay."""
    await archive(database, [transaction("user", number, 100) for number in range(30)], partitions=1)
    run = await run_of(database, database_url, tmp_path, ranges=[span(30)], epoch=4)
    for epoch, gap in ((2, span(8, from_offset=5)), (3, span(22, from_offset=18))):
        await record_quarantine(database, [gap], epoch=epoch)
    await record_quarantine(database, [span(30)], epoch=2, model_type="goal")
    champion = ChampionVersion(
        version="1.0.0", address="artifacts/x", artifact_digest="x", cut=(span(20),), checkpoint=None
    )
    snapshot = opened(store, await taken(database, store, run, champion))
    expected = [*range(5), *range(8, 18), *range(22, 30)]
    assert snapshot.events["offset"].to_pylist() == expected
    assert snapshot.events["is_new"].to_pylist() == [offset >= 20 for offset in expected]
    async with database.reading() as connection:
        (row,) = (await connection.execute(sa.select(snapshots))).mappings().all()
    assert msgspec.convert(row["ranges"], list[OffsetRange]) == [
        span(5), span(18, from_offset=8), span(30, from_offset=22)
    ]  # fmt: skip
    assert msgspec.convert(row["cut"], list[OffsetRange]) == [span(30)]


async def test_answers_within_quarantined_offsets_are_as_if_they_had_never_come(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """Answers within quarantined offsets count as if they had never come."""
    seen, poisoned = uuid4(), uuid4()
    for offset, prediction_id in enumerate([seen, poisoned]):
        await add_prediction(database, "a", prediction_id, offset=offset)
    async with database.transaction() as work:
        await work.connection.execute(
            ledger.insert().values(topic=PREDICTIONS.name, generation=1, partition=0, next_offset=2)
        )
    events = [answer("a", "view", seen, hour=1), answer("a", "view", poisoned, hour=2), answer("a", "click", poisoned, hour=3),
              answer("a", "dismiss", seen, hour=4)]  # fmt: skip
    await archive(database, events, partitions=1)
    run = await run_of(database, database_url, tmp_path, ranges=[span(4)], epoch=2)
    await record_quarantine(database, [span(3, from_offset=1)], epoch=1)
    snapshot = opened(store, await taken(database, store, run))
    assert [(UUID(bytes=row["prediction_id"]), row["responses"]) for row in snapshot.feedback.to_pylist()] == [
        (seen, ["dismiss"])
    ]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6), st.integers(0, 10), st.integers(10, 30))
def test_excluded_ranges_take_exactly_their_offsets_out_of_a_range(
    gaps: list[tuple[int, int]], first: int, last: int
) -> None:
    """An excluded range takes exactly its own offsets away."""
    spans = [span(max(gap), from_offset=min(gap)) for gap in gaps]
    left = [offset for piece in without(span(last, from_offset=first), spans) for offset in range(piece.from_offset, piece.to_offset)]  # fmt: skip
    gone = {offset for gap in gaps for offset in range(min(gap), max(gap))}
    assert left == [offset for offset in range(first, last) if offset not in gone]


async def test_the_ranges_are_stored_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """The ranges are stored before anything is read."""
    ranges = await archive(database, [transaction("user", number, 100) for number in range(9)])
    run = await run_of(database, database_url, tmp_path, ranges=ranges)
    service = SnapshotService(database, store, page_rows=7, seed=0)
    monkeypatch.setattr(service, "_put", _fail)
    with pytest.raises(OSError, match="disk"):
        await service.take(run, None)
    async with database.reading() as connection:
        (row,) = (await connection.execute(sa.select(snapshots))).mappings().all()
    assert row["digest"] is None
    assert row["epochs"] == [1]
    assert msgspec.convert(row["cut"], list[OffsetRange]) == [
        msgspec.structs.replace(item, from_offset=0) for item in sorted(ranges)
    ]


def _fail(*_: object) -> StoredSnapshot:
    raise OSError("the disk is full")


async def test_what_lies_behind_the_champions_cut_is_new_and_the_rest_is_replay(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """Events behind the champion's cut are new, and the rest is replay."""
    await archive(database, [transaction("user", number, 100) for number in range(10)], partitions=1)
    run = await run_of(database, database_url, tmp_path, ranges=[span(10)])
    champion = ChampionVersion(
        version="1.0.0", address="artifacts/x", artifact_digest="x", cut=(span(6),), checkpoint=None
    )
    stored = await taken(database, store, run, champion)
    snapshot = opened(store, stored)
    (history,) = snapshot.users()
    assert history.is_new == [False] * 6 + [True] * 4
    assert stored.new_rows == 4
    assert snapshot.moments.first_new == FIRST_DAY + dt.timedelta(days=6)
    async with database.reading() as connection:
        (row,) = (await connection.execute(sa.select(snapshots))).mappings().all()
    assert msgspec.convert(row["ranges"], list[OffsetRange]) == [span(6), span(10, from_offset=6)]


async def add_prediction(database: Database, user: str, prediction_id: UUID, *, offset: int) -> None:
    """Archive a served recommendation."""
    served = PredictionServed(
        event_id=prediction_id, occurred_at=FIRST_DAY, user_id=user_id_from_name("test", user), model_type="recommendation",
        version="0.0.0", artifact_digest="x", kind=ArtifactKind.BASELINE, replica_id="r", as_of=FIRST_DAY, reducer_version=1,
        features=(1.5, 2.5), answer={}, latency_ms=1.0, action_set="fincoach-5", action=1, propensity=0.9, propensities=(0.1, 0.9),
    )  # fmt: skip
    async with database.transaction() as work:
        await work.connection.execute(predictions.insert().values(
            prediction_id=prediction_id, occurred_at=FIRST_DAY, user_id=served.user_id, model_type=served.model_type, version=served.version,
            artifact_digest=served.artifact_digest, kind=served.kind, replica_id=served.replica_id, action_set=served.action_set,
            action=served.action, propensity=served.propensity, payload=msgspec.json.decode(encode(served)),
            generation=1, partition=0, offset=offset,
        ))  # fmt: skip


def answer(user: str, kind: str, prediction_id: UUID, *, hour: int) -> RecommendationInteraction:
    """Return a view of, or feedback to, a recommendation."""
    return RecommendationInteraction(
        event_id=event_id_from_key(f"{prediction_id}/{kind}"), user_id=user_id_from_name("test", user), consent=True,
        occurred_at=FIRST_DAY + dt.timedelta(hours=hour), recommendation_id="row", prediction_id=prediction_id, interaction_type=kind,  # type: ignore[arg-type]
    )  # fmt: skip


async def test_feedback_is_joined_with_what_was_served(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """Feedback is joined with the propensity and the features that were served."""
    seen, ignored, foreign, late = (uuid4() for _ in range(4))
    for offset, (user, prediction_id) in enumerate([("a", seen), ("a", ignored), ("b", foreign), ("a", late)]):
        await add_prediction(database, user, prediction_id, offset=offset)
    async with database.transaction() as work:
        await work.connection.execute(
            ledger.insert().values(topic=PREDICTIONS.name, generation=1, partition=0, next_offset=3)
        )
    events = [answer("a", "view", seen, hour=1), answer("a", "click", seen, hour=2), answer("a", "implement", seen, hour=3),
              answer("a", "view", ignored, hour=4), answer("a", "click", foreign, hour=5), answer("a", "view", late, hour=6)]  # fmt: skip
    ranges = await archive(database, events)
    snapshot = opened(
        store, await taken(database, store, await run_of(database, database_url, tmp_path, ranges=ranges))
    )
    rows = {UUID(bytes=row["prediction_id"]): row for row in snapshot.feedback.to_pylist()}
    assert set(rows) == {seen, ignored}
    found = rows[seen]
    assert (found["responses"], found["shown_at"]) == (["click", "implement"], FIRST_DAY + dt.timedelta(hours=1))
    assert found["responded_at"] == [FIRST_DAY + dt.timedelta(hours=2), FIRST_DAY + dt.timedelta(hours=3)]
    assert (found["action"], found["propensity"], found["features"], found["propensities"]) == (
        1,
        0.9,
        [1.5, 2.5],
        [0.1, 0.9],
    )
    assert (rows[ignored]["responses"], rows[ignored]["is_new"]) == ([], True)


async def test_an_epoch_without_a_range_of_a_partition_keeps_that_partitions_older_cut(
    database: Database, database_url: str, store: ContentStore, tmp_path: Path
) -> None:
    """A partition without a range in an epoch keeps its older cut."""
    ranges = await archive(database, [transaction(f"user-{number}", number, 100) for number in range(12)])
    assert len(ranges) == 2
    queue = queue_of(database, settings_of(database_url, tmp_path))
    await record_epoch(database, crossing(epoch=1, ranges=ranges))
    for epoch in (1, 2):
        await queue.add_crossing(crossing(epoch=epoch, ranges=[ranges[0]]))
    run = await queue.lease()
    assert run is not None
    assert (await taken(database, store, run)).rows == 12
    assert run.model_type == "spending"
