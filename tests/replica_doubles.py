"""Tiny HTTP servers in place of replicas: they answer what a test says, and record their requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import msgspec

Body = dict[str, Any]
Answer = Callable[[str, Body], tuple[int, Body]]


def recommend(path: str, body: Body) -> tuple[int, Body]:
    """Answer like a replica with a learned version: action 1, in the shape that a host needs."""
    del path, body
    return 200, {"prediction_id": str(uuid4()), "kind": "learned", "action_id": 1}


def unready(path: str, body: Body) -> tuple[int, Body]:
    """Answer like a replica that has nothing loaded yet."""
    del path, body
    return 503, {"error": "no version is loaded"}


class ReplicaDouble:
    """One server; ``answer`` may be changed while it runs."""

    def __init__(self, answer: Answer = recommend) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Body]] = []
        self.port = 0
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[ReplicaDouble]:
        """Serve while the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._connections:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._exchange(reader, writer)
        self._connections.discard(writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        path, body = head.split(" ")[1], msgspec.json.decode(await reader.readexactly(length))
        self.asked.append((path, body))
        status, document = self.answer(path, body)
        payload = msgspec.json.encode(document)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)
        await writer.drain()


@contextlib.asynccontextmanager
async def replicas(*answers: Answer) -> AsyncIterator[list[ReplicaDouble]]:
    """Give running servers, one for each answer."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ReplicaDouble(answer).listening()) for answer in answers]
