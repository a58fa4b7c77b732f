"""The commands about models without any service: what is installed, and whether it is sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from admin.cli import models as cli_models
from admin.cli.app import app
from modelkit.definition import PARTS_OF_PROCESS
from modelkit.inspection import InspectionError, LoadedPart, ProcessImports
from tests.four_models import FOUR_MODELS
from tests.model_packages import environment_with, write_package


def command(*arguments: str) -> Result:
    """Return what ``models`` does."""
    return CliRunner().invoke(app, ["models", *arguments])


def test_the_list_says_of_each_model_where_it_comes_from_and_how_it_is_judged(tmp_path: Path) -> None:
    """Without an installation, the list shows everything except whether the database knows the model."""
    rows = msgspec.json.decode(command("--json", "--folder", str(tmp_path)).stdout)
    assert {row["model_type"] for row in rows} >= set(FOUR_MODELS)
    (goal,) = [row for row in rows if row["model_type"] == "goal"]
    assert goal == {
        "model_type": "goal", "title": "Goal achievement", "distribution": "fincoach-learning 0.1.0", "contract_version": 1,
        "counts": "goals achieved or failed", "threshold": 50, "registered": None,
        "metric": {"name": "brier", "higher_is_better": False, "unit": "squared error of a probability, 0 to 1"},
    }  # fmt: skip
    for_people = command("goal", "--folder", str(tmp_path)).stdout
    assert "not known" in for_people
    assert "brier, lower is better" in for_people
    assert "spending" not in for_people


def imports_that(problem: str | None) -> Any:  # noqa: ANN401 - stands in for imports_of
    """Return a look at the parts of a process that finds ``problem`` in each."""

    def look(process: str) -> ProcessImports:
        return ProcessImports(
            process=process, parts=(LoadedPart(model_type="goal", part="gate", libraries=("onnx",), problem=problem),)
        )

    return look


def test_sound_packages_are_one_sentence_and_exit_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound packages yield one sentence and exit status 0."""
    monkeypatch.setattr(cli_models, "imports_of", imports_that(None))
    result = command("check", "--process", "trainers")
    assert result.exit_code == 0
    assert "Every model package is sound." in result.stdout
    assert "onnx" in result.stdout


def test_what_is_wrong_is_said_and_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect yields its reason and exit status 1."""
    monkeypatch.setattr(cli_models, "imports_of", imports_that("it is missing"))
    result = command("check", "--process", "trainers")
    assert result.exit_code == 1
    assert "error: trainers: gate of goal: it is missing" in result.stderr
    facts = msgspec.json.decode(command("check", "--json", "--process", "trainers").stdout)
    assert facts["sound"] is False
    assert facts["problems"] == ["trainers: gate of goal: it is missing"]
    assert facts["processes"] == [{"process": "trainers", "parts": ["gate"], "libraries": ["onnx"]}]


def test_an_interpreter_that_dies_leaves_the_other_processes_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other processes are still checked when one interpreter dies."""

    def look(process: str) -> ProcessImports:
        if process == "streams":
            raise InspectionError("streams: it died")
        return ProcessImports(process=process, parts=())

    monkeypatch.setattr(cli_models, "imports_of", look)
    facts = msgspec.json.decode(command("check", "--json").stdout)
    assert facts["problems"] == ["streams: it died"]
    assert [each["process"] for each in facts["processes"]] == [name for name in PARTS_OF_PROCESS if name != "streams"]


def test_an_unknown_process_is_one_sentence() -> None:
    """An unknown process is refused with the known names."""
    result = command("check", "--process", "kitchen")
    assert result.exit_code == 2
    assert "'kitchen' is no process; name one of streams, serving" in " ".join(result.stderr.replace("│", " ").split())


def test_packages_of_others_are_looked_at_and_broken_ones_named(tmp_path: Path) -> None:
    """Packages of others are checked too: a sound one is listed, a broken one is named."""
    write_package(tmp_path, "fifth", runtime="models.goal.runtime:GoalRuntime")
    write_package(tmp_path, "broken", source="1 / 0")
    ran = subprocess.run(
        [sys.executable, "-m", "stack", "models", "check", "--json", "--process", "serving"],
        env=environment_with(tmp_path), capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    left_out, wrong = msgspec.json.decode(ran.stdout)["problems"]
    assert left_out.startswith("broken of of-test-broken 0.3 (of_test_broken:DEFINITION) is left out: ")
    assert wrong.startswith("serving: runtime of fifth: GoalRuntime says model_type='goal'")
