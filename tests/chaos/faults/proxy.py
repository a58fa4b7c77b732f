"""A small TCP proxy that makes a connection slow, narrow, silent or cut while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536
HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)  # linger for zero seconds: closing sends a reset


class FaultProxy:
    """Forwards ``listen_port`` to ``target_port``. The attributes below may be changed at any time.

    Attributes:
        delay_seconds: added to each chunk, in both directions.
        bytes_per_second: the limit in each direction of a connection; None for no limit.
        silent: nothing passes and neither side notices (a black hole); traffic resumes where it stopped.
        passed_bytes: the bytes forwarded so far.
        held_chunks: the chunks delayed or held back so far.
        cut_connections: the connections that ``cut`` has ended so far.
    """

    def __init__(self, listen_port: int, target_port: int) -> None:
        self.delay_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.silent = False
        self.passed_bytes = 0
        self.held_chunks = 0
        self.cut_connections = 0
        self.refused_connections = 0
        self.passed_at = float("-inf")
        self._ports = (listen_port, target_port)
        self._closed = False
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._open)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Forward while the block runs."""
        server = await asyncio.start_server(self._accept, HOST, self._ports[0])
        try:
            yield
        finally:
            server.close()
            self._reset_all()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self, *, closed: bool = True) -> None:
        """Reset every connection; unless ``closed`` is false, also every new one until :meth:`heal`."""
        self._closed = closed
        self.cut_connections += len(self._open)
        self._reset_all()

    def silence(self) -> None:
        """Stop forwarding without closing any connection."""
        self.silent = True
        self._flowing.clear()

    def heal(self) -> None:
        """Forward normally again."""
        self.delay_seconds, self.bytes_per_second, self.silent, self._closed = 0.0, None, False, False
        self._flowing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            self.refused_connections += 1
            _reset(writer)
            return
        try:
            onward_reader, onward_writer = await asyncio.open_connection(HOST, self._ports[1])
        except OSError:  # nobody listens: the client sees its connection end
            _reset(writer)
            return
        pair = (writer, onward_writer)
        self._open.add(pair)
        ways = [asyncio.ensure_future(self._pump(*way)) for way in ((reader, onward_writer), (onward_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open.discard(pair)
            for end in pair:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._hold(len(chunk))
                writer.write(chunk)
                await writer.drain()
                self.passed_bytes += len(chunk)
                self.passed_at = time.monotonic()

    async def _hold(self, size: int) -> None:
        seconds = self.delay_seconds + (size / self.bytes_per_second if self.bytes_per_second else 0.0)
        if self.silent or seconds:
            self.held_chunks += 1
        if seconds:
            await asyncio.sleep(seconds)
        await self._flowing.wait()

    def _reset_all(self) -> None:
        for pair in list(self._open):
            for end in pair:
                _reset(end)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
