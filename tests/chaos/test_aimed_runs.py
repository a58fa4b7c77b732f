"""A share of the crash points, always the same one, and every planted bug; ``make crash-points`` dies at all points."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.topics import ALERTS
from tests.chaos.oracle import reading as oracle_reading
from tests.chaos.oracle.invariants import Law
from tests.chaos.oracle.world import World
from tests.chaos.rig.aimed import Run, Yard
from tests.chaos.rig.crash_points import CrashPoint, crash_points, share_of, strike
from tests.chaos.rig.seeded_faults import PLANTED, PlantedBug, look_for, shows

POINTS = share_of(crash_points(), size=26)

pytestmark = [pytest.mark.prove, pytest.mark.timeout(180)]


@pytest.fixture
def yard(own_broker: str, postgres_server: str, template_database: str) -> Yard:
    """Give the yard of the tests' own services."""
    return Yard(brokers=own_broker, postgres=postgres_server, template=template_database)


@pytest.mark.parametrize(("repeat", "point"), list(enumerate(POINTS)), ids=[point.name for point in POINTS])
async def test_a_death_at_a_write_leaves_every_law_whole(
    yard: Yard, tmp_path: Path, repeat: int, point: CrashPoint
) -> None:
    """A process that dies at this moment would lose something or do it twice."""
    result = await strike(yard, tmp_path, point, repeat=repeat)
    assert result.ok, result.broken


@pytest.mark.parametrize("scenario", dict.fromkeys(bug.scenario for bug in PLANTED))
async def test_an_aimed_run_without_a_bug_breaks_no_law(yard: Yard, tmp_path: Path, scenario: str) -> None:
    """What is found with a bug would be found without it too, and prove nothing."""
    finding = await look_for(yard, tmp_path, scenario, plant=None)
    assert finding.is_right, finding.broken


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
async def test_a_planted_bug_is_found(yard: Yard, tmp_path: Path, bug: PlantedBug) -> None:
    """The oracle would hold whatever is wrong: a judge who never says no."""
    finding = await look_for(yard, tmp_path, bug.scenario, plant=bug.name)
    assert finding.is_right, str(finding)


@pytest.mark.parametrize(
    ("law", "detail", "found"),
    [
        ("epochs_whole", "epoch goal/2 begins at 0", True),
        ("epochs_whole", "not shown: 0 epochs, at least 2", False),
        ("caught_up", "it never caught up", False),
    ],
)
def test_a_bug_is_found_by_a_law_that_it_breaks(law: str, detail: str, *, found: bool) -> None:
    """A run that went wrong by chance would prove that the oracle sees a bug."""
    assert shows({law: Law(holds=False, detail=detail)}, "cursor-outside") is found


async def test_what_is_said_while_the_oracle_reads_is_no_complaint(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that ends after a quiet minute, in the middle of the reading, would look like one that was lost."""
    read_topics = oracle_reading._read_topics
    late = iter([b"late", b"later"])
    async with yard.run(tmp_path, seed=1) as run, AIOKafkaProducer(bootstrap_servers=yard.brokers) as producer:

        async def read_and_be_late(world: World, brokers: str) -> None:
            await read_topics(world, brokers)
            if (payload := next(late, None)) is not None:
                await _announce(run, producer, payload=payload)

        monkeypatch.setattr(oracle_reading, "_read_topics", read_and_be_late)
        await _announce(run, producer, payload=b"in time")
        run.minimums["announcements"] = 3
        laws = await run.end(["outbox_heard"])
    assert laws["outbox_heard"].holds, laws


async def _announce(run: Run, producer: AIOKafkaProducer, *, payload: bytes) -> None:
    await producer.send_and_wait(ALERTS.name, payload)
    await run.connection.execute(
        "INSERT INTO outbox (room, topic, payload, published_at) VALUES ('streams', $1, $2, now())",
        ALERTS.name, payload,
    )  # fmt: skip
