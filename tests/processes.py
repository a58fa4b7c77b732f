"""Process services as real processes: started with an environment of their own, asked over HTTP, killed or stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stack.ports import free_port

WAIT_SECONDS = 60.0


async def eventually(check: Callable[[], Awaitable[Any]], *, what: str, seconds: float = WAIT_SECONDS) -> Any:  # noqa: ANN401 - what the check returns
    """Return the first true answer of ``check``; fails with ``what`` was waited for."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await check()
                if answer:
                    return answer
                await asyncio.sleep(0.05)
    except TimeoutError:
        message = f"waited {seconds:.0f} s in vain for {what}"
        raise AssertionError(message) from None


@dataclass
class RunningService:
    """One process of a service."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str) -> httpx.Response | None:
        """Return the answer to GET ``path``, or None while nobody listens."""
        async with httpx.AsyncClient(timeout=5) as client:
            with contextlib.suppress(httpx.TransportError):
                return await client.get(f"{self.url}{path}")
        return None

    async def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Return the answer to POST ``path``."""
        async with httpx.AsyncClient(timeout=5) as client:
            return await client.post(f"{self.url}{path}", json=dict(body))

    async def live(self) -> None:
        """Return when it answers."""
        await eventually(self._is_live, what=f"a live process (log: {self.log.read_text()[-2000:]})")

    async def ready(self) -> dict[str, Any]:
        """Return what readiness says once it is ready."""
        response = await eventually(self._is_ready, what=f"readiness of the process with the log {self.log}")
        facts: dict[str, Any] = response.json()
        return facts

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(20):
            return await self.process.wait()

    async def _is_live(self) -> bool:
        assert self.process.returncode is None, self.log.read_text()[-3000:]
        response = await self.get("/health/live")
        return response is not None and response.is_success

    async def _is_ready(self) -> httpx.Response | None:
        assert self.process.returncode is None, self.log.read_text()[-3000:]
        response = await self.get("/health/ready")
        return response if response is not None and response.is_success else None


@contextlib.asynccontextmanager
async def running(service: str, folder: Path, **settings: object) -> AsyncIterator[RunningService]:
    """Run ``python -m <service>`` with ``FINCOACH_…`` settings; it is killed at the end if it still lives."""
    port = free_port()
    named = {"FOLDER": folder, "PORT": port, **{name.upper(): value for name, value in settings.items()}}
    environment = {**os.environ, **{f"FINCOACH_{name}": str(value) for name, value in named.items()}}  # noqa: TID251 - a child's environment
    log = folder / f"{service}-{port}.log"  # the folder is a test's own and exists
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", service, env=environment, stdout=output, stderr=output
        )
    service_process = RunningService(process, port, log)
    try:
        yield service_process
    finally:
        if process.returncode is None:
            await service_process.end(signal.SIGKILL)
