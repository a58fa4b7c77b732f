"""The peer of the HTTP comparisons: MLServer in an environment of its own, serving the same ONNX file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from benchmarks.plan import Say
from benchmarks.services import HOST, running, until_ready
from stack.ports import free_port
from stack.probes import HttpProbe
from stack.settings import MachineSettings

PEERS = Path(__file__).parent / "peers"
REQUIREMENTS = PEERS / "mlserver-requirements.txt"
RUNTIME = PEERS / "mlserver_runtime.py"
_INSTALL_SECONDS = 300.0
_DONE = "installed"
_LAST_WORDS = 400


class PeerMissingError(Exception):
    """MLServer could not be installed; the message says why."""


def environment_name() -> str:
    """Return the name of the environment's folder: another one for other requirements, and for another Python."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return f"bench-mlserver-{digest}"


async def environment(say: Say) -> Path:
    """Return the folder of MLServer's environment; the first call installs it, which takes about a minute.

    Raises:
        PeerMissingError: it could not be installed.
    """
    folder = MachineSettings().cache / environment_name()
    if (folder / _DONE).exists():
        return folder
    say(f"installing MLServer into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        async with asyncio.timeout(_INSTALL_SECONDS):
            await _call(sys.executable, "-m", "venv", str(folder))
            await _call(str(folder / "bin" / "pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS))
    except TimeoutError as error:
        raise PeerMissingError(f"MLServer could not be installed within {_INSTALL_SECONDS:.0f} s") from error
    except OSError as error:
        raise PeerMissingError(f"MLServer could not be installed: {error}") from error
    (folder / _DONE).touch()
    return folder


@contextlib.asynccontextmanager
async def serving(installed: Path, onnx: bytes, *, folder: Path) -> AsyncIterator[int]:
    """Serve ``onnx`` under the name ``goal`` and give the port; files go to ``folder``.

    One process without a pool of workers, as our replica: the pool would add a hand-over to each request, and does not
    start with this uvloop.
    """
    port = free_port()
    _write(folder, onnx, port=port)
    log = folder / "mlserver.log"
    command = (str(installed / "bin" / "mlserver"), "start", str(folder))
    async with running(*command, environment={}, log=log, folder=folder) as process:
        await until_ready(HttpProbe(f"http://{HOST}:{port}/v2/models/goal/ready"), process, log=log)
        yield port


def _write(folder: Path, onnx: bytes, *, port: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx)
    shutil.copy(RUNTIME, folder)
    server = {
        "debug": False,
        "host": HOST,
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
    }
    model = {
        "name": "goal",
        "implementation": f"{RUNTIME.stem}.OnnxRuntime",
        "parameters": {"uri": "./model.onnx", "version": "1.0.0"},
    }
    (folder / "settings.json").write_bytes(msgspec.json.encode(server))
    (folder / "model-settings.json").write_bytes(msgspec.json.encode(model))


async def _call(*command: str) -> None:
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
            f"MLServer could not be installed: {output.decode(errors='replace').strip()[-_LAST_WORDS:]}"
        )
