"""The Makefile and what names its targets: CI, the guides, the local hooks."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.reference.packages import ROOT

NAMED_IN_GUIDES = re.compile(r"(?:`|^|[$] )make ([a-z][a-z-]+)\b", re.MULTILINE)
GUIDES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def targets() -> set[str]:
    """Return every target that the Makefile declares as one to call."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for name in line.split()}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository without input, its output captured."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**CLEAN, **environment},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


# Variables that an outer make hands down would change what an inner one does.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # noqa: TID251


def test_help_lists_every_target_with_a_word_about_it() -> None:
    """`make help` lists every target with its description."""
    shown = run("make", "help").stdout
    listed = {line.split()[0] for line in shown.splitlines() if re.match(r"  [a-z-]+ +\S", line)}
    assert listed == targets()


def test_help_is_what_make_shows_when_nothing_is_asked() -> None:
    """`make` without a target shows the help."""
    assert run("make").stdout == run("make", "help").stdout


def test_ci_runs_every_check_and_the_tests_last() -> None:
    """CI runs every check, and the tests last, so that their summary ends the output."""
    steps = re.findall(r"^step (\S+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    checks = re.search(r"^check: ([a-z -]+) ##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert checks
    *before, tests = checks.group(1).split()
    assert steps == ["setup", *before, "prove", tests]
    assert steps[-1] == "test"


def test_every_test_is_run_by_one_of_two_targets() -> None:
    """Every test is run by `make test` or `make prove`."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = dict(re.findall(r"^(test|prove): .*\n\t@(.*)$", text, re.MULTILINE))
    assert '-m "not prove"' in commands["test"]
    assert '-m "prove or hypothesis"' in commands["prove"]


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_targets_that_exist(guide: str) -> None:
    """The guides name only targets that exist."""
    named = set(NAMED_IN_GUIDES.findall((ROOT / guide).read_text(encoding="utf-8")))
    assert named - targets() == set()


def test_hooks_run_what_is_installed_here() -> None:
    """The hooks run the pinned tools that are installed here."""
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = configuration["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_setup_says_plainly_that_python_is_too_old(tmp_path: Path) -> None:
    """The setup reports a Python that is too old in a plain sentence."""
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = "-V" ] && echo "Python 3.9.2" && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    asked = run("tools/setup.sh", PYTHON=str(old), VENV=str(tmp_path / "venv"))
    assert asked.returncode == 1
    assert "Python 3.11" in asked.stderr
    assert "Python 3.9.2" in asked.stderr
    assert not (tmp_path / "venv").exists()
