"""Fetching the broker's jars: clear errors, and only the tested jars are used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stack.broker_software import damaged_jars, fetch_jars, jars_folder
from stack.errors import DownloadFailedError
from stack.settings import MachineSettings


@pytest.fixture
def machine(tmp_path: Path) -> MachineSettings:
    """Give the settings of a machine with an empty cache."""
    return MachineSettings(cache_folder=tmp_path / "cache")


def put_maven(folder: Path, monkeypatch: pytest.MonkeyPatch, *, script: str) -> None:
    """Put a program named ``mvn`` first on the path."""
    folder.mkdir()
    (folder / "mvn").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def copying(jars: Path) -> str:
    """Return a script that copies ``jars`` to Maven's output folder and records each run."""
    return (
        f'for a in "$@"; do case $a in -DoutputDirectory=*) cp -r {jars} "${{a#*=}}";; esac; done; echo >> {jars}.runs'
    )


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """Give a copy of the real jars."""
    return Path(shutil.copytree(fetch_jars(), tmp_path / "jars"))


def test_the_reason_of_a_failed_fetch_is_shown(
    machine: MachineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed fetch shows Maven's reason and leaves no jars."""
    put_maven(tmp_path / "bin", monkeypatch, script="printf '\\033[0m[ERROR] Unknown host repo.example\\n'; exit 1")
    with pytest.raises(
        DownloadFailedError, match=r"is its repository reachable\?\n\[ERROR\] Unknown host repo.example"
    ):
        fetch_jars(machine)
    assert not jars_folder(machine).exists()


def test_other_jars_than_the_tested_ones_are_refused(
    machine: MachineSettings, jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jars that differ from the tested ones are refused and not kept."""
    (jars / "kafka-clients-4.3.0.jar").write_bytes(b"something else")
    put_maven(tmp_path / "bin", monkeypatch, script=copying(jars))
    with pytest.raises(DownloadFailedError, match=r"kafka-clients-4\.3\.0\.jar"):
        fetch_jars(machine)
    assert not jars_folder(machine).exists()


def test_jars_are_fetched_once_and_again_only_when_damaged(
    machine: MachineSettings, jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jars are fetched once, and again only when damaged; leftovers of a killed fetch are removed."""
    put_maven(tmp_path / "bin", monkeypatch, script=copying(jars))
    unfinished = machine.cache / "kafka-4.3.0.unfinished"
    unfinished.mkdir(parents=True)
    runs = jars.with_name("jars.runs")
    folder = fetch_jars(machine)
    assert fetch_jars(machine) == folder
    assert runs.read_text().count("\n") == 1
    assert not unfinished.exists()
    (folder / "re2j-1.8.jar").unlink()
    fetch_jars(machine)
    assert runs.read_text().count("\n") == 2
    assert damaged_jars(folder) == ()
