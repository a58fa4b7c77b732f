"""Both wheels as they are built: what a host installs, and what the application installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tools.reference.packages import PACKAGES, ROOT

UNWANTED = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "benchmarks")


def built(source: Path, folder: Path) -> zipfile.ZipFile:
    """Return the wheel that hatchling makes of ``source``; the source is copied first, nothing is left in it."""
    copy = folder / "source" / source.name
    shutil.copytree(source, copy, ignore=UNWANTED)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=60)
    (wheel,) = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Give the wheel of the client."""
    return built(ROOT / "fincoach_events", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def application_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Give the wheel of the application."""
    return built(ROOT, tmp_path_factory.mktemp("application"))


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    """Return the wheel's METADATA."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def requirements_of(wheel: zipfile.ZipFile, extra: str | None = None) -> set[str]:
    """Return the names of what the wheel requires, always or with an extra."""
    lines = metadata_of(wheel).get_all("Requires-Dist") or []
    marker = f"extra == '{extra}'" if extra else None
    chosen = [line for line in lines if (marker in line if marker else "extra ==" not in line)]
    return {line.partition(";")[0].partition("[")[0].strip().rstrip("<>=.,!0123456789 ") for line in chosen}


def test_the_client_wheel_holds_the_typed_package_and_nothing_else(client_wheel: zipfile.ZipFile) -> None:
    """The client's wheel holds the typed package and nothing else."""
    folders = {name.split("/")[0] for name in client_wheel.namelist()}
    assert folders == {"fincoach_events", "fincoach_events-0.1.0.dist-info"}
    written = {path.name for path in (ROOT / "fincoach_events").glob("*.py")} | {"py.typed"}
    assert {name for name in client_wheel.namelist() if name.startswith("fincoach_events/")} == {
        f"fincoach_events/{name}" for name in written
    }


def test_the_client_wheel_needs_two_libraries(client_wheel: zipfile.ZipFile) -> None:
    """The client's wheel requires two libraries."""
    assert requirements_of(client_wheel) == {"aiokafka", "msgspec"}


def test_the_application_wheel_holds_every_package_and_not_the_client(application_wheel: zipfile.ZipFile) -> None:
    """The application's wheel holds every package except the client."""
    names = application_wheel.namelist()
    folders = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert folders == {*PACKAGES, "migrations"} - {"fincoach_events"}
    for package in folders - {"migrations"}:
        assert f"{package}/py.typed" in names


def test_the_application_wheel_holds_the_golden_messages(application_wheel: zipfile.ZipFile) -> None:
    """The application's wheel holds the golden messages, which a worker reads at its start."""
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "schemas" / "examples").rglob("*.json")}
    assert written
    assert written <= set(application_wheel.namelist())


def test_the_application_asks_for_exactly_its_own_client(
    application_wheel: zipfile.ZipFile, client_wheel: zipfile.ZipFile
) -> None:
    """The application requires exactly its own version of the client."""
    lines = metadata_of(application_wheel).get_all("Requires-Dist") or []
    assert f"fincoach-events=={metadata_of(client_wheel)['Version']}" in lines


def test_serving_never_asks_for_a_learning_library(application_wheel: zipfile.ZipFile) -> None:
    """The extra of serving requires no learning library."""
    heavy = {"torch", "scikit-learn", "d3rlpy", "lightgbm", "skl2onnx", "faust-streaming"}
    light = requirements_of(application_wheel) | requirements_of(application_wheel, "serving")
    assert "onnxruntime" in light
    assert light & heavy == set()
    assert heavy <= requirements_of(application_wheel, "trainers") | requirements_of(application_wheel, "streams")
