"""What a run reports: figures from the journals and the supervisor's log, broken invariants last, and an exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.clock import ManualClock
from tests.chaos.__main__ import main, parser, repeated_by
from tests.chaos.faults.register import FAULTS
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.producers.journal import ProducerJournal
from tests.chaos.rig.report import ChaosReport, count_events, own_exits, rendered
from tests.chaos.rig.settings import ChaosSettings


def test_events_are_counted_from_the_journals(tmp_path: Path, clock: ManualClock) -> None:
    """Events are counted from the producers' journals, not from the product."""
    for name in ("a.1", "a.2"):
        journal = ProducerJournal(tmp_path / f"{name}.jsonl", clock)
        first = journal.sending("good", b"{}", valid=True)
        journal.acknowledged(first, topic="t", partition=0, offset=1)
        journal.unsent(journal.sending("late", b"{}", valid=True), "busy")
        journal.close()
    assert count_events(tmp_path) == {"sent": 4, "acknowledged": 2, "unsent": 2, "by_kind": {"good": 2, "late": 2}}


def test_exits_of_processes_that_nobody_killed_are_reported(tmp_path: Path) -> None:
    """A process that ended by itself is reported apart from those that were killed."""
    log = tmp_path / "supervisor.log"
    lines = [
        '{"name":"streams-1","phase":"ready","last_exit":null}',
        '{"name":"streams-1","phase":"backing_off","last_exit":"signal SIGKILL"}',
        '{"name":"deployer-1","phase":"backing_off","last_exit":"exit status 1"}',
        '{"name":"deployer-1","phase":"waiting","last_exit":"exit status 1"}',
    ]
    log.write_text("\n".join(lines) + "\n")
    assert own_exits(log) == {"deployer-1: exit status 1": 1}


def test_broken_invariants_come_last() -> None:
    """The report ends with the broken invariants."""
    verdicts = {"a": Verdict(holds=False, detail="2 lost"), "b": Verdict(holds=True, detail="7 events")}
    report = ChaosReport(
        seed=7, seconds=60, faults={"kill": 3}, unproven={}, invariants=verdicts, events={}, predictions={}, swaps={}, own_exits={},
        caught_up_seconds=1.0, ok=False,
    )  # fmt: skip
    lines = rendered(report).splitlines()
    assert lines[0].startswith("seed 7, 60 s, 3 faults")
    assert lines[-2:] == ["BROKEN a: 2 lost", "NOT OK"]


def test_services_of_somebody_else_are_not_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run refuses to start if the environment names servers, which it would kill."""
    monkeypatch.setenv("FINCOACH_BROKERS", "kafka.example:9092")
    assert main(["--seconds", "1"]) == 2
    assert "unset FINCOACH_BROKERS" in capsys.readouterr().err


def test_the_kinds_of_faults_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The kinds of faults can be listed."""
    assert main(["--list-faults"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(FAULTS)


def test_a_failing_run_names_the_command_that_makes_it_again(tmp_path: Path) -> None:
    """A failing run prints the command that repeats it with the same faults."""
    settings = ChaosSettings(
        seed=7, seconds=60.0, folder=tmp_path, only=("freeze", "kill"), events_per_second=90.0, fault_every_seconds=4.0
    )
    message = repeated_by(settings)
    assert str(tmp_path) in message
    command = message.splitlines()[-1]
    assert 'make chaos SECONDS=60 SEED=7 ONLY="freeze kill"' in command
    options = parser().parse_args(command.partition('ARGS="')[2].rstrip('"').split())
    assert (options.every, options.rate) == (settings.fault_every_seconds, settings.events_per_second)
