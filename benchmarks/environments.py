"""The environments of the peers: each has its own folder and is installed at the first run."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from pathlib import Path

from benchmarks.plan import Say
from stack.settings import MachineSettings

PEERS = Path(__file__).parent / "peers"
_INSTALL_SECONDS = 300.0
_DONE = "installed"
_SHOWN_CHARACTERS = 400


class PeerMissingError(Exception):
    """A peer could not be installed; the message names it and the reason."""


def environment_folder(name: str, requirements: Path) -> Path:
    """Return the environment's folder, which depends on the requirements and the version of Python."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return MachineSettings().cache / f"bench-{name.lower().replace(' ', '-')}-{digest}"


async def environment(name: str, requirements: Path, say: Say) -> Path:
    """Return the folder of the environment of the peer ``name``; the first call installs it in about a minute.

    Raises:
        PeerMissingError: the peer could not be installed.
    """
    folder = environment_folder(name, requirements)
    if (folder / _DONE).exists():
        return folder
    say(f"installing {name} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        async with asyncio.timeout(_INSTALL_SECONDS):
            await _call(name, sys.executable, "-m", "venv", str(folder))
            pip = str(folder / "bin" / "pip")
            await _call(name, pip, "install", "--quiet", "--requirement", str(requirements))
    except TimeoutError as error:
        raise PeerMissingError(f"{name} could not be installed within {_INSTALL_SECONDS:.0f} s") from error
    except OSError as error:
        raise PeerMissingError(f"{name} could not be installed: {error}") from error
    (folder / _DONE).touch()
    return folder


async def _call(name: str, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        raise PeerMissingError(
            f"{name} could not be installed: {output.decode(errors='replace').strip()[-_SHOWN_CHARACTERS:]}"
        )
