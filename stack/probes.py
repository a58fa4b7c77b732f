"""Readiness probes: is a process ready, or not yet?"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from stack.processes import Probe

PROBE_SECONDS = 2.0  # a process that hangs must not hang its supervisor
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answers(probe: Probe) -> bool:
    """Probe once. A refused connection, one cut short and silence all mean "not yet"."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await probe()
    except (OSError, EOFError):  # TimeoutError is an OSError, IncompleteReadError an EOFError
        return False


@asynccontextmanager
async def _connection(host: str, port: int) -> AsyncIterator[_Streams]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@dataclass(frozen=True)
class HttpProbe:
    """Ready when a GET of ``url`` (http only) returns status 200."""

    url: str

    async def __call__(self) -> bool:
        """Whether the status is 200."""
        parts = urlsplit(self.url)
        path = parts.path or "/"
        target = f"{path}?{parts.query}" if parts.query else path
        async with _connection(parts.hostname or "127.0.0.1", parts.port or 80) as (reader, writer):
            writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
        return status.split()[1:2] == [b"200"]


@dataclass(frozen=True)
class KafkaProbe:
    """Ready when the broker lists itself in its metadata.

    A broker accepts connections and answers ApiVersions while it is still fenced, but refuses to create topics then.
    Metadata lists only brokers that are not fenced. Without ``node_id``, any listed broker is enough.
    """

    host: str
    port: int
    node_id: int | None = None

    async def __call__(self) -> bool:
        """Whether the broker (any broker without ``node_id``) is live."""
        client = b"fincoach-probe"
        # Metadata, version 4: header (api key 3, version, correlation id, client id), no topics, no auto-creation.
        request = struct.pack(">hhih", 3, 4, 1, len(client)) + client + struct.pack(">ib", 0, 0)
        async with _connection(self.host, self.port) as (reader, writer):
            writer.write(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            nodes = _listed_nodes(await reader.readexactly(size))
        return bool(nodes) if self.node_id is None else self.node_id in nodes


def _listed_nodes(answer: bytes) -> list[int]:
    """Return the broker ids in a Metadata answer (version 4, without its size)."""
    place = 8  # correlation id, throttle time
    (brokers,) = struct.unpack_from(">i", answer, place)
    place += 4
    nodes = []
    for _ in range(brokers):
        node, host_bytes = struct.unpack_from(">ih", answer, place)
        place += 6 + host_bytes + 4  # id, length of the host's name, name, port
        (rack_bytes,) = struct.unpack_from(">h", answer, place)
        place += 2 + max(rack_bytes, 0)
        nodes.append(node)
    return nodes
