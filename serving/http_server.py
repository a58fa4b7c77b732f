"""uvicorn as a part of a process: started, asked to drain, and stopped by the process, not by signals of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from serving.endpoints import ReplicaApplication


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the process decides when to stop."""
        yield


class HttpServer:
    """Serves the application. While stopping it first closes connections with its answers, then lets requests in flight finish."""

    def __init__(
        self, application: ReplicaApplication, *, host: str, port: int, drain_seconds: float, grace_seconds: int
    ) -> None:
        self._application = application
        self._address = (host, port)
        self._drain_seconds = drain_seconds
        self._server = _Server(
            uvicorn.Config(
                application, http="httptools", ws="none", lifespan="off", interface="asgi3", access_log=False, log_config=None,
                server_header=False, date_header=True, timeout_keep_alive=75, timeout_graceful_shutdown=grace_seconds,
            )
        )  # fmt: skip
        self._serving: asyncio.Task[None] | None = None
        self.port = 0  # set once it listens

    async def start(self) -> None:
        """Listen; returns when requests are answered.

        Raises:
            OSError: the address is taken.
        """
        listener = socket.create_server(self._address, backlog=2048)
        self.port = int(listener.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        listens = asyncio.create_task(self._server.listens.wait())
        await asyncio.wait({self._serving, listens}, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """Drain and close; every request that was accepted is answered. Calling it twice is allowed."""
        self._application.draining = True
        await asyncio.sleep(self._drain_seconds)
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
