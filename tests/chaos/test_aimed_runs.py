"""A share of the crash points and of the planted bugs, another one each day; ``make crash-points planted-bugs`` tries all."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from backends.clock import SystemClock
from schemas.topics import ALERTS
from tests.chaos.oracle.invariants import Law
from tests.chaos.oracle import reading as oracle_reading
from tests.chaos.oracle.world import World
from tests.chaos.rig.aimed import Run, Yard
from tests.chaos.rig.crash_points import CrashPoint, crash_points, strike, todays_share
from tests.chaos.rig.seeded_faults import PLANTED, PlantedBug, look_for, shows, todays_bugs

POINTS_A_DAY = 6
TODAY = SystemClock().now().date()
BUGS = todays_bugs(PLANTED, day=TODAY)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.fixture
def yard(own_broker: str, postgres_server: str, template_database: str) -> Yard:
    """Give the yard of the tests' own services."""
    return Yard(brokers=own_broker, postgres=postgres_server, template=template_database)


@pytest.mark.parametrize(
    "point", todays_share(crash_points(), size=POINTS_A_DAY, day=TODAY), ids=lambda point: point.name
)
async def test_a_death_at_a_write_leaves_every_law_whole(yard: Yard, tmp_path: Path, point: CrashPoint) -> None:
    """A process that dies at this moment would lose something or do it twice."""
    result = await strike(yard, tmp_path, point, repeat=TODAY.toordinal())
    assert result.ok, result.broken


@pytest.mark.parametrize("scenario", dict.fromkeys(bug.scenario for bug in BUGS))
async def test_an_aimed_run_without_a_bug_breaks_no_law(yard: Yard, tmp_path: Path, scenario: str) -> None:
    """What is found with a bug would be found without it too, and prove nothing."""
    finding = await look_for(yard, tmp_path, scenario, plant=None)
    assert finding.is_right, finding.broken


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
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
