"""The command line itself: help of every command, and a sentence for each wrong use, without any service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import stack.cli  # noqa: F401 - adds its commands
from admin.cli.app import app
from tests.four_models import FOUR_MODELS

TOP: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = sorted(TOP)
# Every command that can be given, those of a group with the group's name before them.
ALL_COMMANDS = {
    (name, *below): command for name, top in TOP.items() for below, command in
    [((), top), *(((key,), each) for key, each in getattr(top, "commands", {}).items())]
}  # fmt: skip
# What works on an installation, with what it must be given.
ON_AN_INSTALLATION = [
    ("status",), ("thresholds",), ("versions",), ("versions", "--decisions"), ("datasets",), ("trainings",), ("events",), ("dead-letters",),
    ("audit",), ("train", "goal"), ("deploy", "goal", "1.0.0"), ("rollback", "goal"), ("thresholds", "goal", "--set", "5"), ("replay", "cdnow"),
    ("datasets", "approve", "goal", "--reason", "x"), ("datasets", "quarantine", "goal", "--reason", "x", "--epoch", "3"),
]  # fmt: skip


def command(*arguments: str) -> Result:
    """Return what a command does."""
    return CliRunner().invoke(app, list(arguments))


def said(result: Result) -> str:
    """Return what went to standard error, without the frame around it."""
    return " ".join(result.stderr.replace("│", " ").split())


def test_all_commands_of_the_guide_are_there() -> None:
    """Every command that the guide names exists."""
    assert set(COMMANDS) >= {
        "up", "down", "status", "demo", "replay", "train", "deploy", "rollback", "thresholds", "versions", "datasets", "trainings", "events",
        "dead-letters", "audit", "doctor", "prepare",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(ALL_COMMANDS), ids=" ".join)
def test_every_command_explains_itself_and_its_options(name: tuple[str, ...]) -> None:
    """Every command and every option has a help text."""
    result = command(*name, "--help")
    assert result.exit_code == 0
    found = ALL_COMMANDS[name]
    assert found.help
    assert found.help.split()[0] in result.stdout
    undescribed = [p.name for p in found.params if p.name != "reason" and not getattr(p, "help", None)]
    assert undescribed == [] or set(undescribed) <= {"replicas", "deaths"}, undescribed


def test_a_group_alone_lists_and_a_model_behind_it_is_not_taken_for_a_command(tmp_path: Path) -> None:
    """A group without a command lists, so `datasets goal` lists the goal data sets."""
    for arguments in (
        ("datasets",),
        ("datasets", "goal"),
        ("datasets", "list", "goal"),
        ("datasets", "--json", "goal"),
    ):
        assert "nothing was started" in said(command(*arguments, "--folder", str(tmp_path)))
    assert "'golf' is not one of" in said(command("datasets", "golf"))
    assert "list" in command("datasets", "--help").stdout


@pytest.mark.parametrize("arguments", [("--help",), ("thresholds", "-h")])
def test_the_command_runs_as_a_program(arguments: tuple[str, ...]) -> None:
    """The installed command runs as a program."""
    ran = subprocess.run(
        [sys.executable, "-m", "stack", *arguments], capture_output=True, check=False, text=True, cwd=Path(__file__).parents[3]
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Usage:" in ran.stdout


def test_without_a_command_the_help_is_shown() -> None:
    """Without a command the help is shown."""
    result = command()
    assert result.exit_code == 2
    assert "Commands" in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", ON_AN_INSTALLATION, ids=" ".join)
def test_where_nothing_was_started_every_command_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Where nothing was started, every command says so in a sentence."""
    result = command(*arguments, "--folder", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing was started in" in said(result)
    assert "run `fincoach-learning up`, or name the folder with --folder" in said(result)


def test_the_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installation's folder can come from the environment."""
    monkeypatch.setenv("FINCOACH_FOLDER", str(tmp_path / "second"))
    assert "second yet" in said(command("versions"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "weather"), "'weather' is not one of"),
        (("versions", "weather"), "'weather' is not one of"),
        (("deploy", "goal"), "Missing argument 'version'"),
        (("thresholds", "goal", "--set", "many"), "Invalid value for '--set'"),
        (("trainings", "--limit", "0"), "Invalid value for '--limit'"),
        (("datasets", "approve", "goal"), "Missing option '--reason'"),
        (("datasets", "quarantine", "goal", "--reason", "x", "--epoch", "last"), "Invalid value for '--epoch'"),
        (("rollback", "goal", "--wait", "0"), "Invalid value for '--wait'"),
        (("events", "--user", "ann"), "Invalid value for '--user'"),
        (("fly",), "No such command 'fly'"),
        (("status", "--fast"), "No such option"),
        (("up", "--replicas", "0"), "Invalid value for '--replicas'"),
    ],
)
def test_wrong_use_is_refused_with_what_is_right(arguments: tuple[str, ...], sentence: str) -> None:
    """Wrong use is refused with a sentence that says what is right."""
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence.casefold() in said(result).casefold()  # Typer's own words differ a little between its versions


def test_a_mistyped_model_is_told_the_right_names() -> None:
    """A mistyped model is refused with the known names."""
    assert all(model in said(command("rollback", "weather")) for model in FOUR_MODELS)


def test_a_threshold_needs_a_model(tmp_path: Path) -> None:
    """A threshold can be set only for a named model."""
    result = command("thresholds", "--set", "500", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "name the model whose threshold is to change" in said(result)


def test_models_may_be_written_in_capitals(tmp_path: Path) -> None:
    """A model's name may be written in capitals."""
    assert "nothing was started" in said(command("versions", "GOAL", "--folder", str(tmp_path)))
