"""A fixed share of the crash points, and every seeded fault; ``make crash-points`` tries all points."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.topics import ALERTS
from tests.chaos.oracle import reading as oracle_reading
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.oracle.world import World
from tests.chaos.rig.aimed import Infrastructure, Run
from tests.chaos.rig.crash_points import CrashPoint, crash_at, crash_points, share_of
from tests.chaos.rig.seeded_faults import SEEDED_FAULTS, SeededFault, is_found, look_for

POINTS = share_of(crash_points(), size=26)

pytestmark = [pytest.mark.prove, pytest.mark.timeout(180)]


@pytest.fixture
def infrastructure(own_broker: str, postgres_server: str, template_database: str) -> Infrastructure:
    """Return the broker and the database of the tests."""
    return Infrastructure(brokers=own_broker, postgres=postgres_server, template=template_database)


@pytest.mark.parametrize(("repeat", "point"), list(enumerate(POINTS)), ids=[point.name for point in POINTS])
async def test_a_death_at_a_write_breaks_no_invariant(
    infrastructure: Infrastructure, tmp_path: Path, repeat: int, point: CrashPoint
) -> None:
    """No invariant breaks when a process dies at this write."""
    result = await crash_at(infrastructure, tmp_path, point, repeat=repeat)
    assert result.ok, result.broken


@pytest.mark.parametrize("scenario", dict.fromkeys(fault.scenario for fault in SEEDED_FAULTS))
async def test_an_aimed_run_without_a_seeded_fault_breaks_no_invariant(
    infrastructure: Infrastructure, tmp_path: Path, scenario: str
) -> None:
    """An aimed run without a seeded fault breaks no invariant."""
    finding = await look_for(infrastructure, tmp_path, scenario, fault=None)
    assert finding.is_right, finding.broken


@pytest.mark.parametrize("fault", SEEDED_FAULTS, ids=lambda fault: fault.name)
async def test_a_seeded_fault_is_found(infrastructure: Infrastructure, tmp_path: Path, fault: SeededFault) -> None:
    """The oracle finds each seeded fault."""
    finding = await look_for(infrastructure, tmp_path, fault.scenario, fault=fault.name)
    assert finding.is_right, str(finding)


@pytest.mark.parametrize(
    ("invariant", "detail", "found"),
    [
        ("epochs_whole", "epoch goal/2 begins at 0", True),
        ("epochs_whole", "not exercised: 0 epochs, at least 2", False),
        ("caught_up", "it never caught up", False),
    ],
)
def test_a_fault_is_found_by_an_invariant_that_it_breaks(invariant: str, detail: str, *, found: bool) -> None:
    """A fault counts as found only if one of its own invariants breaks."""
    assert is_found({invariant: Verdict(holds=False, detail=detail)}, "cursor-outside") is found


async def test_what_is_said_while_the_oracle_reads_is_no_complaint(
    infrastructure: Infrastructure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that ends while the oracle reads is not a lost one."""
    read_topics = oracle_reading._read_topics
    late = iter([b"late", b"later"])
    async with (
        infrastructure.run(tmp_path, seed=1) as run,
        AIOKafkaProducer(bootstrap_servers=infrastructure.brokers) as producer,
    ):

        async def read_and_be_late(world: World, brokers: str) -> None:
            await read_topics(world, brokers)
            if (payload := next(late, None)) is not None:
                await _announce(run, producer, payload=payload)

        monkeypatch.setattr(oracle_reading, "_read_topics", read_and_be_late)
        await _announce(run, producer, payload=b"in time")
        run.minimums["announcements"] = 3
        verdicts = await run.end(["outbox_published"])
    assert verdicts["outbox_published"].holds, verdicts


async def _announce(run: Run, producer: AIOKafkaProducer, *, payload: bytes) -> None:
    await producer.send_and_wait(ALERTS.name, payload)
    await run.connection.execute(
        "INSERT INTO outbox (service, topic, payload, published_at) VALUES ('streams', $1, $2, now())",
        ALERTS.name, payload,
    )  # fmt: skip
