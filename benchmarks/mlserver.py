"""The peer of the HTTP comparisons: MLServer in its own environment, serving the same ONNX file."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from benchmarks import environments
from benchmarks.environments import PEERS
from benchmarks.plan import Say
from benchmarks.services import HOST, running, until_ready
from stack.ports import free_port
from stack.probes import HttpProbe

REQUIREMENTS = PEERS / "mlserver-requirements.txt"
RUNTIME = PEERS / "mlserver_runtime.py"


async def environment(say: Say) -> Path:
    """Return the folder of MLServer's environment.

    Raises:
        PeerMissingError: it could not be installed.
    """
    return await environments.environment("MLServer", REQUIREMENTS, say)


@contextlib.asynccontextmanager
async def serving(installed: Path, onnx: bytes, *, folder: Path) -> AsyncIterator[int]:
    """Serve ``onnx`` as the model ``goal`` and give the port; files go to ``folder``.

    It runs as one process without a pool of workers, like our replica. The pool would add a hop to each request, and
    does not start with this uvloop.
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
