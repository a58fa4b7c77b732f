"""The little HTTP server of health, readiness and metrics, asked over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from backends.clock import ManualClock
from backends.telemetry.health import HealthServer


@asynccontextmanager
async def serving(checks: dict[str, bool], facts: dict[str, Any] | None = None) -> AsyncIterator[HealthServer]:
    """A server whose readiness is ``checks``, as they are at each question."""
    server = HealthServer(
        host="127.0.0.1", port=0, readiness=lambda: checks, facts=None if facts is None else lambda: facts
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: HealthServer, path: str) -> httpx.Response:
    """Return the answer to GET ``path``."""
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{server.port}{path}")


async def said_to(server: HealthServer, request: bytes) -> bytes:
    """Return what the server answers to raw bytes before it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_process_is_ready_only_while_all_its_checks_hold() -> None:
    """A process is ready only while all its checks hold."""
    checks = {"database": True, "broker": True}
    async with serving(checks, {"epoch": 7}) as server:
        ready = await ask(server, "/health/ready")
        checks["broker"] = False
        unready = await ask(server, "/health/ready")
    assert (ready.status_code, unready.status_code) == (200, 503)
    assert ready.json() == {"ready": True, "checks": {"database": True, "broker": True}, "facts": {"epoch": 7}}
    assert unready.json()["checks"] == {"database": True, "broker": False}


async def test_a_process_that_is_not_ready_is_still_alive() -> None:
    """A process that is not ready is still alive."""
    async with serving({"broker": False}) as server:
        response = await ask(server, "/health/live")
    assert (response.status_code, response.json()) == (200, {"live": True})


async def test_metrics_come_in_the_form_that_prometheus_reads() -> None:
    """Metrics have the content type that Prometheus expects."""
    async with serving({}) as server:
        response = await ask(server, "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"fincoach_outbox_published_total" in response.content


async def test_an_unknown_path_names_the_known_ones() -> None:
    """The answer to an unknown path names the known ones."""
    async with serving({}) as server:
        response = await ask(server, "/healthz")
    assert response.status_code == 404
    assert "/health/ready" in response.json()["error"]


@pytest.mark.parametrize("request_bytes", [b"", b"GET", b"\r\n\r\n", b"\xff\xfe \xff\r\n\r\n", b"x" * 100_000])
async def test_what_is_no_http_harms_nobody(request_bytes: bytes) -> None:
    """Input that is not HTTP disturbs neither the process nor its endpoints."""
    async with serving({"all": True}) as server:
        answer = await said_to(server, request_bytes)
        after = await ask(server, "/health/ready")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 404")
    assert after.status_code == 200


async def test_the_server_gives_its_port_back() -> None:
    """The server releases its port when it stops."""
    server = HealthServer(host="127.0.0.1", port=0, readiness=dict)
    await server.stop()  # before it was started: nothing to do
    await server.start()
    port = server.port
    await server.stop()
    again = HealthServer(host="127.0.0.1", port=port, readiness=dict)
    await again.start()
    assert again.port == port
    await again.stop()


async def test_an_answer_says_what_time_the_process_has(clock: ManualClock) -> None:
    """An answer shows the time of the process's clock."""
    server = HealthServer(host="127.0.0.1", port=0, readiness=dict, clock=clock)
    await server.start()
    answer = await ask(server, "/health/live")
    await server.stop()
    assert answer.headers["date"] == "Wed, 04 Mar 2026 12:00:00 GMT"
