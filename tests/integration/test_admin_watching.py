"""Alerts and the progress of trainings, read from a real broker by the command line."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from typer.testing import CliRunner, Result

from admin.cli.app import app
from admin.cli.watching import follow, since
from admin.installation import Installation, save
from backends.broker.kafka import create_topics
from backends.clock import SystemClock
from schemas import codec
from schemas.errors import RetryLaterError
from schemas.messages.alerts import AlertCleared, AlertRaised
from schemas.messages.training import TrainingProgressed
from schemas.topics import ALERTS, TRAINING_PROGRESS
from schemas.vocabulary import ModelType
from stack.ports import free_port
from tests.integration.backends_topics import send
from tests.services import unique


@pytest.fixture
async def brokers(broker_address: str) -> str:
    """Return the broker, with the topics that are watched."""
    await create_topics(broker_address, wide_partitions=1, topics=[ALERTS, TRAINING_PROGRESS])
    return broker_address


def alert(kind: type[AlertRaised | AlertCleared], subject: str) -> bytes:
    """Return an alert as it is on the topic."""
    return codec.encode(kind(
        event_id=uuid4(), occurred_at=SystemClock().now(), name="watermark_lag", subject=subject, service="streams", detail="3 [/h] behind"
    ))  # fmt: skip


def progress(model: ModelType, step: int, **changes: object) -> bytes:
    """Return a step of a training as it is on the topic."""
    fields = {"event_id": uuid4(), "occurred_at": SystemClock().now(), "training_event_id": uuid4(), "model_type": model, "phase": "fitting", "step": step, "steps": 9}  # fmt: skip
    return codec.encode(TrainingProgressed(**{**fields, **changes}))  # type: ignore[arg-type]


def installed(folder: Path, brokers: str) -> Path:
    """Return the folder of an installation with this broker."""
    save(folder, Installation(
        database_url="", brokers=brokers, store_url="", keys_folder="", wide_partitions=1, processes=()
    ))  # fmt: skip
    return folder


async def command(*arguments: str, folder: Path) -> Result:
    """Return the result of a command."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, [*arguments, "--folder", str(folder)]))


async def test_alerts_are_listed_in_their_order_and_what_nobody_can_read_is_left_out(
    brokers: str, tmp_path: Path
) -> None:
    """Alerts are listed in order; broken messages are left out, and brackets are harmless."""
    subject, folder = unique("subject"), installed(tmp_path, brokers)
    await send(brokers, ALERTS, alert(AlertRaised, subject), b"no JSON", alert(AlertCleared, subject))
    for_programs = await command("alerts", "--json", folder=folder)
    for_people = await command("alerts", folder=folder)
    rows = [row for row in msgspec.json.decode(for_programs.stdout) if row["subject"] == subject]
    assert [(row["state"], row["service"]) for row in rows] == [("AlertRaised", "streams"), ("AlertCleared", "streams")]
    assert for_people.exit_code == 0
    assert "3 [/h] behind" in for_people.stdout


async def test_old_alerts_are_left_out(brokers: str, tmp_path: Path) -> None:
    """Old alerts are left out, and an empty list is no error."""
    subject = unique("subject")
    await send(brokers, ALERTS, alert(AlertRaised, subject))
    result = await command("alerts", "--hours", "0", folder=installed(tmp_path, brokers))
    assert result.exit_code == 0
    assert "No alert within the last 0 hours." in result.stdout


async def test_progress_is_told_as_it_happens(brokers: str) -> None:
    """The progress of a training is shown as it happens."""
    moment = SystemClock().now()
    run_id = uuid4()
    await send(brokers, TRAINING_PROGRESS, progress("goal", 1, training_event_id=run_id))
    steps: list[int] = []
    async with asyncio.timeout(30):
        messages = follow(brokers, TRAINING_PROGRESS, moment - dt.timedelta(seconds=5))
        async for message in messages:
            if message.training_event_id == run_id:
                steps.append(message.step)
                if message.step == 2:
                    break
                await send(brokers, TRAINING_PROGRESS, b"{}", progress("goal", 2, training_event_id=run_id, loss=0.25))
        await messages.aclose()  # type: ignore[attr-defined]
    assert steps == [1, 2]


async def test_the_command_line_follows_one_model_until_ctrl_c(brokers: str, tmp_path: Path) -> None:
    """The command line follows one model until Ctrl-C."""
    await send(brokers, TRAINING_PROGRESS, progress("spending", 3), progress("goal", 9, loss=0.25, verdict="rejected"))  # fmt: skip
    arguments = ("-u", "-m", "stack", "trainings", "goal", "--follow", "--folder", str(installed(tmp_path, brokers)))
    following = await asyncio.create_subprocess_exec(
        *("env", "--default-signal=INT", sys.executable),  # whoever runs the tests in the background ignores it
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert following.stdout is not None
    async with asyncio.timeout(60):
        lines: list[str] = []
        while not lines or "rejected" not in lines[-1]:
            lines.append((await following.stdout.readline()).decode().strip())
            assert lines[-1]
        following.send_signal(signal.SIGINT)
        await following.communicate()
    assert lines[-1].endswith("goal fitting 9/9, loss 0.2500: rejected")
    assert not any("spending" in line for line in lines)


async def test_a_broker_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away is reported in a sentence."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr("admin.cli.watching.CONNECT_SECONDS", 0.3)
    with pytest.raises(RetryLaterError, match=f"the broker at {address} does not answer"):
        await since(address, ALERTS, SystemClock().now())
    for arguments in (("alerts",), ("trainings", "--follow")):
        result = await command(*arguments, folder=installed(tmp_path, address))
        assert result.exit_code == 1
        assert "does not answer; run `fincoach-learning status`" in " ".join(result.stderr.split())
