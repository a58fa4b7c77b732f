"""Health, readiness and metrics over HTTP for processes that are not web servers: three GET routes, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
from collections.abc import Callable
from typing import Any

import msgspec

from backends.clock import Clock, SystemClock
from backends.telemetry import metrics

# Names of checks and whether they hold; all must hold for readiness.
Readiness = Callable[[], dict[str, bool]]
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class HealthServer:
    """Answers ``/health/live``, ``/health/ready`` and ``/metrics``."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        readiness: Readiness,
        facts: Callable[[], dict[str, Any]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._host, self._wanted_port = host, port
        self._readiness = readiness
        self._facts = facts or dict
        self._clock = clock or SystemClock()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port on which the server really listens."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._wanted_port

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self._host, self._wanted_port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
            parts = head.split(b" ", 2)
            status, kind, body = self._answer(parts[1].decode(errors="replace") if len(parts) > 1 else "")
            writer.write(self._head(status, kind, size=len(body)) + body)
            await writer.drain()
        writer.close()

    def _head(self, status: int, kind: str, *, size: int) -> bytes:
        """The head of an answer; its date shows whether the process's clock is right."""
        date = email.utils.format_datetime(self._clock.now(), usegmt=True)
        lines = (
            f"HTTP/1.1 {status} {_REASONS[status]}",
            f"Date: {date}",
            f"Content-Type: {kind}",
            f"Content-Length: {size}",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/health/live":
            return 200, "application/json", b'{"live":true}'
        if path == "/health/ready":
            checks = self._readiness()
            ready = all(checks.values())
            return (
                200 if ready else 503,
                "application/json",
                msgspec.json.encode({"ready": ready, "checks": checks, "facts": self._facts()}),
            )
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", metrics.render()
        return 404, "application/json", b'{"error":"known paths: /health/live, /health/ready, /metrics"}'
