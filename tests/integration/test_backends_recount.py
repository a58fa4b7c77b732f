"""The loop counted again from the rows of a real database: every figure by which the demo is judged."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy as sa

from backends.database.repositories.queries import QueryRepository
from backends.database.repositories.recount import EventRecount, OpenWork, RecountRepository
from backends.database.unit_of_work import Database
from schemas.tables import epochs, model_training_events, model_versions, outbox, panes, rollout_decisions
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import Service
from tests.integration.admin_rows import AT, Rows
from tests.integration.backends_topics import database_of


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a way to the database."""
    async with database_of(Service.ADMIN, database_url) as database:
        yield database


async def pane(database: Database, first: int, last: int, **figures: int) -> None:
    """Insert a pane over the offsets ``first`` to ``last`` (exclusive)."""
    counts = {"archived": 0, "duplicates": 0, "dead_lettered": 0, "not_consented": 0, **figures}
    await Rows(database).add(
        panes, topic=BEHAVIORAL_EVENTS.name, generation=1, partition=0, from_offset=first, to_offset=last, records=last - first, counts={},
        **counts,
    )  # fmt: skip


async def recounted(database: Database) -> EventRecount:
    """Return the figures of the events."""
    async with database.reading() as connection:
        return await RecountRepository(connection).events(BEHAVIORAL_EVENTS.name)


async def test_events_are_counted_from_archive_ledger_panes_and_dead_letters(database: Database) -> None:
    """Events are recounted from archive, ledger, panes and dead letters."""
    assert set(msgspec.structs.astuple(await recounted(database))) == {0}
    await Rows(database).archive()  # one event, one dead letter, a ledger at 6
    await pane(database, 0, 4, archived=1, duplicates=3)
    await pane(database, 4, 6, archived=0, duplicates=1, dead_lettered=1)
    figures = await recounted(database)
    assert figures == EventRecount(
        archived=1,
        distinct_archived=1,
        delivered=6,
        dead_lettered=1,
        pane_records=6,
        counted=1,
        duplicates=4,
        pane_dead_lettered=1,
        holes=0,
    )


async def test_a_hole_between_panes_is_found(database: Database) -> None:
    """A gap between panes is found."""
    await pane(database, 0, 4)
    await pane(database, 5, 6)
    assert (await recounted(database)).holes == 1


async def test_models_are_counted_by_crossing_verdict_and_decision(database: Database) -> None:
    """Each model's crossings, verdicts and decisions are counted."""
    rows = Rows(database)
    await rows.data_set()
    await rows.training()
    await rows.deployment()
    await rows.add(model_training_events, model_type="goal", status="completed", verdict="champion_kept")
    await rows.add(model_training_events, model_type="goal", status="in_progress")
    await rows.add(rollout_decisions, model_type="goal", version="1.1.0", decision="rejected", reason="r")
    async with database.reading() as connection:
        models = {row.model_type: row for row in await RecountRepository(connection).models()}
    goal = models["goal"]
    assert (goal.crossings, goal.trainings) == (1, 2)
    assert (goal.deployed, goal.kept_champion, goal.rejected, goal.failed) == (1, 1, 1, 0)
    assert (goal.version, goal.kind) == ("1.0.0", "learned")


async def test_the_evidence_of_a_model_is_that_of_its_active_version(database: Database) -> None:
    """The evidence of a model belongs to its active version."""
    rows, active = Rows(database), uuid4()
    older = {"model_type": "goal", "status": "completed", "verdict": "candidate_wins"}
    newer = {"model_type": "goal", "status": "completed", "verdict": "champion_kept"}
    await rows.add(
        model_training_events, id=active, performance_metrics={"comparison": {"candidate": 0.8}}, created_at=AT, **older
    )
    await rows.add(model_training_events, performance_metrics={"comparison": {"candidate": 0.7}}, **newer)
    async with database.reading() as connection:
        before = await RecountRepository(connection).evidence()
    await rows.deployment()
    async with database.transaction() as work:
        await work.connection.execute(
            model_versions.update().where(model_versions.c.is_active).values(training_event_id=active)
        )
    async with database.reading() as connection:
        after = await RecountRepository(connection).evidence()
    assert before["goal"].performance_metrics["comparison"] == {"candidate": 0.7}  # the newest
    assert after["goal"].performance_metrics["comparison"] == {"candidate": 0.8}


async def test_the_way_from_a_crossing_to_the_last_replica_is_measured(database: Database) -> None:
    """The time from a crossing to the last replica is measured."""
    rows, run_id = Rows(database), uuid4()
    await rows.data_set()
    await rows.add(
        model_training_events, id=run_id, model_type="goal", status="completed", verdict="candidate_wins", epochs=[101]
    )
    await rows.deployment(sequence=1)
    async with database.transaction() as work:
        await work.connection.execute(
            model_versions.update().where(model_versions.c.is_active).values(training_event_id=run_id)
        )
        await work.connection.execute(epochs.update().values(reached_at=AT - dt.timedelta(seconds=12)))
    async with database.reading() as connection:
        [served] = await RecountRepository(connection).crossing_to_served()
        [acknowledged] = await QueryRepository(connection).acknowledgements()
    assert (served.model_type, served.version, served.seconds) == ("goal", "1.0.0", 12.0)
    assert acknowledged.served_since == AT


async def test_open_work_is_what_somebody_still_has_to_do(database: Database) -> None:
    """Open work is exactly what some service still has to do."""
    rows = Rows(database)
    async with database.reading() as connection:
        idle = await RecountRepository(connection).open_work()
    await rows.data_set()  # a crossing without a job
    await rows.training()  # a job that runs, and a win that nobody has decided about
    await rows.add(outbox, service="streams", topic="t", payload=b"")
    async with database.reading() as connection:
        busy = await RecountRepository(connection).open_work()
    async with database.transaction() as work:
        await work.connection.execute(sa.update(outbox).values(published_at=sa.func.now()))
    async with database.reading() as connection:
        published = await RecountRepository(connection).open_work()
    assert idle == OpenWork()
    assert busy == OpenWork(jobs=1, unpublished=1, undecided=1, unheard=1)
    assert published == msgspec.structs.replace(busy, unpublished=0)


async def test_without_a_closed_loop_there_is_no_chain(database: Database) -> None:
    """Without a closed loop there is no chain."""
    await Rows(database).everything()
    async with database.reading() as connection:
        assert await RecountRepository(connection).chain() is None
