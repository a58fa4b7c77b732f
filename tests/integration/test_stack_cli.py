"""The command line against a whole running system: one system for all of this file, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

import stack.cli  # noqa: F401 - adds its commands
from admin.cli.app import app
from admin.gateway import CommandGateway
from admin.installation import Installation, load
from backends.clock import SystemClock
from fincoach_events.events import encode_event
from schemas.errors import CommandRejectedError
from schemas.topics import COMMAND_EXECUTORS
from stack.bad_input import bad_records
from stack.folder import running_supervisor
from tests.four_models import FOUR_MODELS
from tests.integration.streams_workers import transaction
from tests.services import unique

pytestmark = pytest.mark.timeout(180)
GOOD_EVENTS = 40
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Return a shell's environment in which no services are named, so that the system brings its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FINCOACH_")}  # noqa: TID251 - a child's environment


class Shell:
    """Runs commands on one folder, as a person or a script would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-m", "stack", *arguments, "--folder", str(self.folder)]
        return subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=120, env=environment(), cwd=ROOT
        )

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 - what the command prints
        """Return what a command prints for programs; run inside this process, which is quicker."""
        ran = CliRunner().invoke(app, [*arguments, "--json", "--folder", str(self.folder)])
        assert ran.exit_code == 0, ran.stderr
        return msgspec.json.decode(ran.stdout)

    def refused(self, *arguments: str) -> str:
        """Return the one sentence with which a command is refused."""
        ran = self(*arguments)
        assert (ran.returncode, ran.stdout) == (1, ""), ran
        assert ran.stderr.startswith("error: ")
        assert "Traceback" not in ran.stderr
        return ran.stderr

    def until(self, look: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:  # noqa: ANN401 - what is found
        """Return the first true thing that ``look`` finds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.2)
        pytest.fail(f"waited {seconds:g} s for {what}")

    @property
    def installation(self) -> Installation:
        """Return where everything is."""
        return load(self.folder)

    def is_whole(self) -> bool:
        """Say whether every link of the loop holds."""
        return CliRunner().invoke(app, ["status", "--json", "--folder", str(self.folder)]).exit_code == 0


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """Give a shell in which the system was started in the background, in a folder that the account of Postgres can pass."""
    with tempfile.TemporaryDirectory(prefix="fincoach-cli-", ignore_cleanup_errors=True) as name:
        shell = Shell(Path(name))
        started = shell("up", "--detach", "--replicas", "2", "--partitions", "3")
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            assert "ready; `fincoach-learning status` shows its state" in started.stdout
            yield shell
        finally:
            shell("down")


def test_the_status_of_a_running_system_is_whole(shell: Shell) -> None:
    """The status of a running system is whole, with exit status 0."""
    shell.until(shell.is_whole, "a whole loop")
    for_people, for_programs = shell("status"), shell.json("status")
    assert "The loop is whole." in for_people.stdout
    assert (for_programs["whole"], for_programs["first_broken"]) == (True, None)
    assert all(link["holds"] for link in for_programs["links"])
    ready = {process["name"]: process["ready"] for process in for_programs["processes"]}
    assert ready == dict.fromkeys(("streams-1", "trainer-1", "deployer-1", "replica-1", "replica-2"), True)
    assert {reader["link"] for reader in for_programs["readers"]} >= {"trainers", "deployer"}


def test_every_process_answers_for_its_health_and_metrics(shell: Shell) -> None:
    """Every process answers for its health and metrics."""
    for process in shell.installation.processes:
        path = "/v2/health/live" if process.service == "serving" else "/health/live"
        assert httpx.get(process.url + path).status_code == 200, process.name
        assert httpx.get(f"{process.url}/health/ready").status_code == 200, process.name
        metrics = httpx.get(f"{process.url}/metrics")
        assert metrics.status_code == 200, process.name
        assert "fincoach_" in metrics.text, process.name


@pytest.mark.parametrize("arguments", [("up",), ("up", "--fresh"), ("up", "--detach")])
def test_a_second_system_on_the_same_folder_is_refused(shell: Shell, arguments: tuple[str, ...]) -> None:
    """A second system on the same folder is refused, and the first one keeps running."""
    pid = running_supervisor(shell.folder)
    ran = shell(*arguments)
    assert ran.returncode == 1
    assert f"is in use by process {pid}" in ran.stderr
    assert "stop it with `fincoach-learning down`, or choose another folder" in ran.stderr
    assert running_supervisor(shell.folder) == pid


def test_every_model_answers_from_its_baseline_before_anything_was_learned(shell: Shell) -> None:
    """Every model answers from its baseline before the first training."""
    versions = shell.json("versions")
    assert {(row["model_type"], row["version"], row["is_active"]) for row in versions} == {
        (model, "0.0.0", True) for model in FOUR_MODELS
    }
    for replica in shell.installation.replicas:
        answer = httpx.post(f"{replica.url}/predict/segmentation", json={"user_id": str(transaction(1).user_id)})
        assert answer.status_code == 200
        assert answer.json()["kind"] == "baseline"
    assert {row["decision"] for row in shell.json("versions", "--decisions")} == {"baseline"}


def test_a_rollback_with_nothing_before_it_is_refused_and_written_down(shell: Shell) -> None:
    """A rollback without an earlier version is refused and audited."""
    sentence = shell.refused("rollback", "segmentation", "--reason", "a test")
    assert "segmentation" in sentence
    newest = shell.json("audit", "--limit", "5")[0]
    assert (newest["action"], newest["subject"], newest["outcome"]) == ("RollBackModel", "segmentation", "rejected")
    assert newest["details"]["detail"] in sentence


def test_an_unknown_version_is_refused(shell: Shell) -> None:
    """An unknown version is refused."""
    sentence = shell.refused("deploy", "goal", "9.9.9")
    assert "9.9.9" in sentence
    assert shell.json("versions", "goal")[0]["version"] == "0.0.0"


def test_a_threshold_of_minus_one_is_refused_and_one_that_can_be_meant_is_set(shell: Shell) -> None:
    """A threshold of -1 is refused; a possible one is set."""
    assert "give a number from 1" in shell.refused("thresholds", "goal", "--set", "-1")
    assert "0" in shell.refused("thresholds", "goal", "--quality", "2")
    done = shell("thresholds", "goal", "--set", "45", "--cool-down", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("done by streams: ")
    changed = {row["model_type"]: row for row in shell.json("thresholds")}["goal"]
    assert (changed["threshold"], changed["cool_down_seconds"]) == (45, 3)
    assert "@" in changed["updated_by"]


async def test_a_command_that_nobody_knows_is_refused_with_the_known_ones(shell: Shell) -> None:
    """An unknown command is refused with the known ones."""
    clock = SystemClock()
    gateway = CommandGateway(shell.installation.brokers, issuer=unique("test"), clock=clock)
    known = gateway.command(next(iter(COMMAND_EXECUTORS)), "goal")
    document = msgspec.json.decode(msgspec.json.encode(known)) | {"type": "BuyShares"}
    await gateway.start()
    try:
        await gateway.send_raw("goal", msgspec.json.encode(document))
        answer = await gateway.answer_to(known.event_id, timeout_seconds=30)
        with pytest.raises(CommandRejectedError, match="no model 'weather'"):
            await gateway.execute(gateway.command(next(iter(COMMAND_EXECUTORS)), "weather"), timeout_seconds=30)
    finally:
        await gateway.stop()
    assert type(answer).__name__ == "CommandRejected"
    assert all(kind.__name__ in answer.detail for kind in COMMAND_EXECUTORS)


def test_a_file_of_events_is_replayed_and_its_bad_lines_are_kept_aside(shell: Shell) -> None:
    """A file is replayed, its bad lines become dead letters, and a second replay counts nothing twice."""
    good = [encode_event(transaction(number)) for number in range(GOOD_EVENTS)]
    bad = [value for value, _ in bad_records(SystemClock().now())]
    lines = shell.folder / "events.jsonl"
    lines.write_bytes(b"\n".join([*good[:20], *bad, *good[20:]]) + b"\n")
    for _ in range(2):
        ran = shell("replay", "--jsonl", str(lines))
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("45 of 45 records acknowledged in ")
    letters = shell.until(
        lambda: len(found := shell.json("dead-letters", "--limit", "100")) == 2 * len(bad) and found, "dead letters"
    )
    reasons = {row["reason"] for row in letters}
    assert reasons == {"not_json", "missing_field", "in_the_future", "too_large", "unknown_type"}
    events = shell.json("events", "--limit", "1000")
    assert len(events) == GOOD_EVENTS
    assert shell.json("events", "--user", str(transaction(0).user_id))[0]["event_type"] == "transaction_creation"
    spending = {row["dataset_type"]: row for row in shell.json("datasets")}["spending"]
    assert spending["threshold"] == 1000
    shell.until(shell.is_whole, "a whole loop after bad input")


def test_a_replay_of_what_is_not_there_is_refused(shell: Shell) -> None:
    """A replay of a missing file is refused."""
    assert "is not there: name a file" in shell.refused("replay", "--jsonl", "/nowhere/events.jsonl")
    assert "there is no data set 'astrology'" in shell.refused("replay", "astrology")


def test_a_training_by_command_is_taken_up(shell: Shell) -> None:
    """A training by command starts before the threshold is reached."""
    answer = shell.json("train", "goal", "--reason", "a test")
    assert answer["executor"] == "trainers"
    queued = {row["model_type"] for row in shell.json("trainings", "--queue")}
    ended = {row["model_type"] for row in shell.json("trainings")}
    assert "goal" in queued | ended
    actors = [
        row["actor"] for row in shell.json("audit") if (row["action"], row["subject"]) == ("TriggerTraining", "goal")
    ]
    assert len(actors) == 1
    assert "@" in actors[0]


def test_schema_and_topics_can_be_prepared_again(shell: Shell) -> None:
    """Preparing schema and topics again changes nothing."""
    installation = shell.installation
    named = {
        "FINCOACH_DATABASE_URL": installation.database_url,
        "FINCOACH_BROKERS": installation.brokers,
        "FINCOACH_WIDE_PARTITIONS": "3",
    }
    command = [sys.executable, "-m", "stack", "prepare"]
    again = subprocess.run(command, capture_output=True, check=False, text=True, env=environment() | named, cwd=ROOT)
    assert (again.returncode, again.stdout) == (0, "schema and topics are up to date\n"), again.stderr
    named["FINCOACH_WIDE_PARTITIONS"] = "9"
    other = subprocess.run(command, capture_output=True, check=False, text=True, env=environment() | named, cwd=ROOT)
    assert other.returncode == 1
    assert "has 3 partitions but the settings say 9" in other.stderr


def test_a_system_stops_keeps_its_data_and_starts_again(shell: Shell) -> None:
    """A stopped system leaves no process, keeps its data and starts again."""
    shell("thresholds", "segmentation", "--set", "77")
    stopped = shell("down")
    assert (stopped.returncode, stopped.stdout.splitlines()[-1]) == (0, "stopped")
    assert running_supervisor(shell.folder) is None
    assert "the database does not answer" in shell.refused("versions")

    output = shell.folder / "second-run.txt"
    command = [sys.executable, "-m", "stack", "up", "--partitions", "3", "--folder", str(shell.folder)]
    with output.open("wb") as sink:
        system = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment(), cwd=ROOT)
    shell.until(lambda: "ready. Replicas" in output.read_text() or system.poll(), "the second start")
    thresholds = {row["model_type"]: row["threshold"] for row in shell.json("thresholds")}
    assert thresholds["segmentation"] == 77
    system.send_signal(signal.SIGINT)  # Ctrl-C
    assert system.wait(60) == 0
    assert output.read_text().splitlines()[-1] == "stopped"


def test_a_second_start_in_the_background_waits_until_it_is_ready(shell: Shell) -> None:
    """A start in the background returns when the system is ready."""
    shell("down")
    started = shell("up", "--detach", "--partitions", "3")
    status = shell("status")
    shell("down")
    assert started.returncode == 0
    assert "database    holds" in status.stdout
