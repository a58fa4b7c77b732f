"""Readiness probes against real sockets: ready, not yet, and a silent server."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stack.ports import _reserved, free_port
from stack.probes import HttpProbe, KafkaProbe, answers


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Run a server that answers one request and hangs up; give its port and the list of requests."""
    asked: list[bytes] = []
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1024))
        writer.write(answer)
        writer.close()
        await writer.wait_closed()
        served.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], asked
        await served.wait()


async def test_nobody_listening_means_not_yet() -> None:
    """A refused connection means "not yet" and is no error."""
    port = free_port()
    for probe in (HttpProbe(f"http://127.0.0.1:{port}/"), KafkaProbe("127.0.0.1", port)):
        assert not await answers(probe)


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 204 200\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_only_a_200_means_ready(answer: bytes, ready: bool) -> None:  # noqa: FBT001 - a parameter of the case
    """Only status 200 means ready."""
    async with server(answer) as (port, asked):
        assert await answers(HttpProbe(f"http://127.0.0.1:{port}/health/ready?deep=1")) is ready
    assert asked[0].startswith(b"GET /health/ready?deep=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(("brokers", "ready"), [(0, False), (1, True), (3, True)])
async def test_a_broker_that_is_fenced_is_not_ready(brokers: int, ready: bool) -> None:  # noqa: FBT001 - see above
    """A broker is ready only when its metadata lists a live broker."""
    async with server(metadata(*range(1, brokers + 1))) as (port, _):
        assert await answers(KafkaProbe("127.0.0.1", port)) is ready


async def test_a_broker_is_ready_when_it_lists_itself() -> None:
    """In a cluster, a broker is ready only when the metadata lists that broker itself."""
    async with server(metadata(1, 3)) as (port, _):
        assert [await answers(KafkaProbe("127.0.0.1", port, node)) for node in (1, 2, 3)] == [True, False, True]


def metadata(*nodes: int) -> bytes:
    """Return a broker's answer that lists ``nodes``."""
    brokers = [struct.pack(">ih9sih4s", node, 9, b"127.0.0.1", 9092, 4, b"rack") for node in nodes]
    body = struct.pack(">iii", 1, 0, len(nodes)) + b"".join(brokers)
    return struct.pack(">i", len(body)) + body


async def test_a_silent_process_does_not_hang_its_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of a silent process ends after its time limit with "not yet"."""
    monkeypatch.setattr("stack.probes.PROBE_SECONDS", 0.2)

    async def silence() -> bool:
        await asyncio.Event().wait()
        return True

    async with asyncio.timeout(5):
        assert not await answers(silence)


def test_a_port_is_given_to_one_process_only() -> None:
    """Two processes that ask for a free port at once get different ports."""
    port = free_port()
    assert not _reserved(port)
    asking = f"import stack.ports, sys; sys.exit(stack.ports._reserved({port}))"
    assert subprocess.run([sys.executable, "-c", asking], check=False).returncode == 0
